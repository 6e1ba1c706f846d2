"""Many clients for a while: no error, no lost request, memory flat. TEST_SOAK_S says how long."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import NamedTuple

import pytest
import requests

from tests import servers
from tests.servers import EVERY_DOOR, Server

pytestmark = pytest.mark.soak

_SOAK_S = float(os.environ.get("TEST_SOAK_S") or 20)
_CLIENTS = 8
_WARM_UP_S = 5.0
_SAMPLE_S = 0.5
_TIMEOUT_S = 60
# Each time that more large requests than ever before happen to be at work together, the allocator takes a few megabytes
# more and keeps them. That comes to an end; what grows with every request does not.
_GROWTH_BYTES = 64_000_000
_LATE_GROWTH_BYTES = 16_000_000


class Kind(NamedTuple):
    """A request to repeat, and what must come back: a status, and what is said of its body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    fits: Callable[[bytes, str], bool]


class Tally:
    """What the clients have seen. Safe under threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.replies: Counter[str] = Counter()
        self.wrong: list[str] = []

    def count(self, name: str, problem: str | None) -> None:
        with self._lock:
            self.replies[name] += 1
            if problem is not None:
                self.wrong.append(f"{name}: {problem}")


def _predicts(body: bytes, request_id: str) -> bool:
    reply = json.loads(body)
    return reply["request_id"] == request_id and len(reply["predictions"]) > 0


def _fails(code: str) -> Callable[[bytes, str], bool]:
    def fits(body: bytes, request_id: str) -> bool:
        error = json.loads(body)["error"]
        return (error["code"], error["request_id"]) == (code, request_id)

    return fits


def _kinds(photos: Mapping[str, Path]) -> dict[str, Kind]:
    jpeg = {"Content-Type": "image/jpeg"}
    asks_json = {"Content-Type": "application/json"}
    street, cat = photos["street"].read_bytes(), photos["chelsea"].read_bytes()
    in_json = json.dumps({"image_base64": b64encode(cat).decode()}).encode()
    png = {**jpeg, "Accept": "image/png"}
    return {
        "a street": Kind("POST", "/predict", jpeg, street, 200, _predicts),
        "a cat in JSON": Kind("POST", "/predict", asks_json, in_json, 200, _predicts),
        "a cat, drawn": Kind("POST", "/predict", png, cat, 200, lambda body, _: body.startswith(b"\x89PNG")),
        "half a picture": Kind("POST", "/predict", jpeg, street[:9000], 422, _fails("image_undecodable")),
        "no picture": Kind("POST", "/predict", jpeg, b"hello" * 1000, 415, _fails("not_an_image")),
        "JSON that is none": Kind("POST", "/predict", asks_json, b"{", 400, _fails("invalid_json")),
        "an unknown path": Kind("GET", "/nowhere", {}, b"", 404, _fails("route_not_found")),
        "the models": Kind("GET", "/models", {}, b"", 200, lambda body, _: b"coco-ssd" in body),
        "the metrics": Kind("GET", "/metrics", {}, b"", 200, lambda body, _: b"thinlens_replies" in body),
    }


def _problem(session: requests.Session, url: str, kind: Kind, request_id: str) -> str | None:
    """What is wrong with the reply to one request, if anything."""
    headers = {"X-Request-Id": request_id, **kind.headers}
    try:
        reply = session.request(kind.method, url + kind.path, data=kind.body, headers=headers, timeout=_TIMEOUT_S)
    except requests.RequestException as error:
        return f"{request_id} was lost: {error!r}"
    if reply.headers.get("X-Request-Id") != request_id:
        return f"{request_id} came back as {reply.headers.get('X-Request-Id')}"
    if reply.status_code != kind.status or not kind.fits(reply.content, request_id):
        return f"{request_id}: {reply.status_code} {reply.content[:300]!r}"
    return None


def _client(number: int, url: str, kinds: Mapping[str, Kind], ends_at: float, tally: Tally) -> None:
    names = list(kinds)
    with requests.Session() as session:
        for turn, name in enumerate(islice(cycle(names), number, None)):
            if monotonic() >= ends_at:
                return
            tally.count(name, _problem(session, url, kinds[name], f"client-{number}/{turn}"))


def _watch(server: Server, ends_at: float) -> list[int]:
    """The server's memory, time and again, after a warm-up."""
    sleep(_WARM_UP_S)
    sizes = [server.resident_bytes]
    while monotonic() < ends_at:
        sleep(_SAMPLE_S)
        sizes.append(server.resident_bytes)
    return sizes


@EVERY_DOOR
def test_nothing_is_lost_and_memory_stays(door: str, photos: dict[str, Path]) -> None:
    tally, kinds = Tally(), _kinds(photos)
    with servers.DOORS[door]({"THINLENS_LOG_LEVEL": "error"}) as server:
        ends_at = monotonic() + _WARM_UP_S + _SOAK_S
        with ThreadPoolExecutor(_CLIENTS) as pool:
            clients = [pool.submit(_client, n, server.url, kinds, ends_at, tally) for n in range(_CLIENTS)]
            sizes = _watch(server, ends_at)
        for client in clients:
            client.result()
        log = server.log
    figures = (
        f"{door}: {sum(tally.replies.values())} requests in {_WARM_UP_S + _SOAK_S:g} s, {len(tally.wrong)} wrong; "
        f"memory in MB {sizes[0] / 1e6:.0f} after warm-up, {max(sizes) / 1e6:.0f} at most, {sizes[-1] / 1e6:.0f} last"
    )
    print(figures)  # noqa: T201 - what the soak is run for
    assert tally.wrong == [], figures
    assert all(tally.replies[name] > 0 for name in kinds), figures
    assert max(sizes) - sizes[0] < _GROWTH_BYTES, figures
    half = len(sizes) // 2
    assert max(sizes[half:]) - max(sizes[:half]) < _LATE_GROWTH_BYTES, figures
    assert "Traceback" not in log, log
