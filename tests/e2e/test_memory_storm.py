"""The real server under a real limit, and more large pictures at once than it has memory for: every request is
answered, every refusal says the figures, and the process lives. TEST_STORM_S says how long, TEST_STORM_MB how much.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import NamedTuple

import pytest
import requests

from tests import servers
from tests.bench.pictures import encoded
from tests.servers import ROOT, Server

_STORM_S = float(os.environ.get("TEST_STORM_S") or 8)
_LIMITS_MB = [int(word) for word in (os.environ.get("TEST_STORM_MB") or "1500").split()]
_CLIENTS = 8
_TIMEOUT_S = 120
_MODELS = ROOT / "model_server" / "models"
_REFUSALS = {413: "out_of_memory", 503: "at_capacity", 429: "too_many_requests"}
_CGROUPS = Path("/sys/fs/cgroup/memory")


class Kind(NamedTuple):
    path: str
    body: bytes


class Tally:
    """What the clients have seen. Safe under threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.replies: Counter[str] = Counter()
        self.wrong: list[str] = []

    def count(self, name: str, said: str, problem: str | None) -> None:
        with self._lock:
            self.replies[f"{name}: {said}"] += 1
            if problem is not None:
                self.wrong.append(f"{name}: {problem}")


def kinds() -> dict[str, Kind]:
    """Pictures of 12 to 50 million pixels, for every task whose bundle is there."""
    small, twelve = encoded("JPEG", (1000, 667)), encoded("JPEG", (4000, 3000))
    progressive, fifty = encoded("JPEG", (6000, 4000), progressive=True), encoded("JPEG", (8000, 6200))
    png, webp = encoded("PNG", (4000, 3000), compress_level=1), encoded("WEBP", (5000, 4000), method=0)
    detector = "/models/coco-ssd-mobilenet-v2/predict"
    found = {
        "a small one": Kind(detector, small),
        "12 MP": Kind(detector, twelve),
        "24 MP progressive": Kind(detector, progressive),
        "12 MP PNG": Kind(detector, png),
        "20 MP WebP": Kind(detector, webp),
        "12 MP drawn": Kind(f"{detector}?format=jpeg", twelve),
        "50 MP drawn": Kind(f"{detector}?format=png", fifty),
    }
    if (_MODELS / "mobile-sam").is_dir():
        found["12 MP, a click"] = Kind("/models/mobile-sam/predict?points=[[900,900]]", twelve)
        found["24 MP, a box"] = Kind("/models/mobile-sam/predict?box=[300,300,1800,1500]", progressive)
        found["instances"] = Kind("/models/coco-ssd-mobile-sam/predict", twelve)
    if (_MODELS / "esrgan-slim").is_dir():
        tiny = encoded("JPEG", (400, 300))
        found["x4"] = Kind("/models/esrgan-slim/predict?scale=4", tiny)
        found["x2 as PNG"] = Kind("/models/esrgan-slim/predict?scale=2&format=png", tiny)
        found["12 MP x4"] = Kind("/models/esrgan-slim/predict?scale=4", twelve)
    return found


def ask(session: requests.Session, url: str, kind: Kind) -> tuple[str, str | None]:
    """What was answered, and what is wrong with that, if anything."""
    try:
        reply = session.post(url + kind.path, kind.body, headers={"Content-Type": "image/jpeg"}, timeout=_TIMEOUT_S)
    except requests.RequestException as lost:
        return "lost", f"was lost: {lost!r}"
    if reply.status_code == 200:
        return "200", None
    error = reply.json()["error"]
    said = f"{reply.status_code} {error['code']}"
    if reply.status_code == 504:
        return said, None
    if error["code"] != _REFUSALS.get(reply.status_code):
        return said, f"{said}: {error['message']}"
    is_told = reply.status_code == 429 or error.get("limit", 0) < error.get("found", 0)
    return said, None if is_told else f"{said} without figures: {error}"


def client(number: int, server: Server, asked: dict[str, Kind], ends_at: float, tally: Tally) -> None:
    with requests.Session() as session:
        for turn, name in enumerate(islice(cycle(asked), number * 3, None)):
            if monotonic() >= ends_at and turn >= 3:
                return
            tally.count(name, *ask(session, server.url, asked[name]))


def storm(server: Server, limit_mb: int) -> None:
    asked, tally = kinds(), Tally()
    begin = monotonic()
    with ThreadPoolExecutor(_CLIENTS) as clients:
        under_way = [clients.submit(client, n, server, asked, begin + _STORM_S, tally) for n in range(_CLIENTS)]
        for each in under_way:
            each.result()
    print(f"\n{limit_mb} MB, {monotonic() - begin:.0f} s, {sum(tally.replies.values())} requests:")  # noqa: T201
    for said, count in sorted(tally.replies.items()):
        print(f"  {count:5d}  {said}")  # noqa: T201
    assert not tally.wrong, f"{len(tally.wrong)} wrong replies, among them {tally.wrong[:5]}; {server.log[-2000:]}"
    assert any(said.endswith(": 200") for said in tally.replies)
    sleep(0.1)
    assert requests.get(f"{server.url}/health", timeout=_TIMEOUT_S).ok


def started(prefix: list[str]) -> Server:
    """The container's server, started by a shell that first does what is said."""
    port = servers.free_port()
    command = f"{' '.join(prefix)} exec {servers.BIN / 'gunicorn'} --bind 127.0.0.1:{port} shared.web:application"
    environ = servers.environ({"THINLENS_THREADS": "2", "THINLENS_TIMEOUT_S": "60"})
    return Server(["bash", "-c", command], port, environ, ROOT)


@contextmanager
def group(limit_mb: int) -> Iterator[Path]:
    """A control group of so much memory, where this machine lets us make one."""
    folder = _CGROUPS / f"thinlens-storm-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"NOT RUN: no control group can be made here: {error.strerror}")
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit_mb * 1_000_000))
        yield folder
    finally:
        folder.rmdir()


@pytest.mark.parametrize("limit_mb", _LIMITS_MB)
def test_a_storm_under_ulimit(limit_mb: int) -> None:
    with started([f"ulimit -v {limit_mb * 1_000_000 // 1024};"]) as server:
        storm(server, limit_mb)
        peaks = [_status_mb(pid, "VmPeak") for pid in server.pids]
    print(f"  addresses at most {max(peaks):.0f} MB")  # noqa: T201


@pytest.mark.parametrize("limit_mb", _LIMITS_MB)
def test_a_storm_in_a_control_group(limit_mb: int) -> None:
    with group(limit_mb) as folder, started([f"echo $$ > {folder}/cgroup.procs;"]) as server:
        storm(server, limit_mb)
        oom = (folder / "memory.oom_control").read_text().split()
        peaks = [_status_mb(pid, "VmHWM") for pid in server.pids]
        print(f"  resident at most {sum(peaks):.0f} MB in {len(peaks)} processes; {' '.join(oom)}")  # noqa: T201
        assert oom[oom.index("oom_kill") + 1] == "0"
    # The one that works: what both map from files would count twice, and the kernel may drop it.
    assert max(peaks) < limit_mb


def _status_mb(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field)), 0.0)
