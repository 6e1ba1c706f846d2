"""What tests of a failing model server share: clients that ask all the time, and a wire that can go bad."""

from __future__ import annotations

import json
import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, sleep
from typing import Any, NamedTuple

import requests

from tests.servers import Server

CLIENTS = 8
TIMEOUT_S = 2.0
MARGIN_S = 0.5
RECOVERY_S = 5.0
CODES: Mapping[str, int] = {
    "server_failed": 502,
    "model_output_mismatch": 502,
    "server_unreachable": 503,
    "server_busy": 503,
    "model_broken": 503,
    "at_capacity": 503,
    "not_ready": 503,
    "server_timeout": 504,
    "deadline_exceeded": 504,
}
"""Every failure that a model server may be the cause of, with its status."""
_SECRETS = ("127.0.0.1", "localhost", "/tmp", "Traceback", ".py", "grpc", "tritonserver", "errno")
_PAUSE_S = 0.02
_CLIENT_TIMEOUT_S = 30.0
_NONE: Mapping[str, str] = {}


class Seen(NamedTuple):
    """One request's answer: when it came, how long it took, what it was, and what is wrong with it, if anything."""

    at: float
    took_s: float
    status: int
    code: str
    backend: str
    problem: str


@dataclass
class Clients:
    """Those that post the same picture, each as soon as it has its answer, and look at what comes."""

    url: str
    picture: bytes
    right: Sequence[Mapping[str, Any]]
    """The predictions that every 200 must hold."""
    timeout_s: float = TIMEOUT_S
    count: int = CLIENTS
    seen: list[Seen] = field(default_factory=list)
    _over: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)

    def ask(self, session: requests.Session) -> Seen:
        begin = monotonic()
        headers = {"Content-Type": "image/jpeg"}
        try:
            reply = session.post(f"{self.url}/predict", data=self.picture, headers=headers, timeout=_CLIENT_TIMEOUT_S)
        except requests.RequestException as error:
            return Seen(monotonic(), monotonic() - begin, 0, "", "", f"lost: {error!r}")
        took_s = monotonic() - begin
        body = reply.json()
        code = body["error"]["code"] if "error" in body else ""
        problem = self._problem(reply, body, code) or ("" if took_s <= self.timeout_s + MARGIN_S else "too late")
        return Seen(monotonic(), took_s, reply.status_code, code, body.get("backend", ""), problem)

    def _problem(self, reply: requests.Response, body: Mapping[str, Any], code: str) -> str:
        if reply.status_code == 200:
            return difference(body["predictions"], self.right)
        if CODES.get(code) != reply.status_code:
            return f"{reply.status_code} {code} {body['error']['message']}"
        if reply.status_code == 503 and int(reply.headers.get("Retry-After", "0")) < 1:
            return f"{code} without Retry-After"
        told = json.dumps(body)
        return f"tells too much: {told}" if any(word in told for word in _SECRETS) else ""

    def _keep_asking(self) -> None:
        with requests.Session() as session:
            while not self._over.is_set():
                seen = self.ask(session)
                with self._lock:
                    self.seen.append(seen)
                self._over.wait(_PAUSE_S)

    def once(self) -> Seen:
        with requests.Session() as session:
            return self.ask(session)

    def are_answered(self) -> bool:
        return self.once().status == 200

    @contextmanager
    def asking(self) -> Iterator[None]:
        """All of them, until the block ends; then every answer must have been a right one."""
        threads = [Thread(target=self._keep_asking) for _ in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def check(self) -> None:
        """Every answer must have been a right one, in time."""
        wrong = [f"{seen.took_s:.2f} s {seen.status}: {seen.problem}" for seen in self.seen if seen.problem]
        assert not wrong, f"{len(wrong)} of {len(self.seen)} are wrong:\n" + "\n".join(wrong[:20])

    def counts(self, since: float = 0.0, until: float = float("inf")) -> dict[str, int]:
        """How many of each status and code came between two moments."""
        found = (seen for seen in self.seen if since <= seen.at <= until)
        return dict(Counter(f"{seen.status} {seen.code or seen.backend}" for seen in found))

    def slowest_s(self, since: float = 0.0) -> float:
        return max((seen.took_s for seen in self.seen if seen.at >= since), default=0.0)

    def recovery_s(self, back_at: float) -> tuple[float, float]:
        """From the moment that the server was back: until the first 200, and until the last answer that was none."""
        later = [seen for seen in self.seen if seen.at >= back_at]
        first = next((seen.at for seen in later if seen.status == 200), float("inf"))
        last = max((seen.at for seen in later if seen.status != 200), default=back_at)
        return first - back_at, last - back_at


def difference(found: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with predictions: scores may differ by 1e-3, boxes by half a pixel."""
    if [each["label"] for each in found] != [each["label"] for each in right]:
        return f"wrong labels: {[each['label'] for each in found]}"
    for one, other in zip(found, right, strict=True):
        apart = max(abs(a - b) for a, b in zip(one["box"], other["box"], strict=True))
        if apart > 0.5 or abs(one["score"] - other["score"]) > 1e-3:
            return f"wrong box or score: {one}, expected {other}"
    return ""


SPARE_THREADS = 2
"""A server's pool takes a new thread on whenever a request comes before the last one's thread has come to rest."""


class Held(NamedTuple):
    """What a server and the processes that it started hold."""

    threads: int
    descriptors: int
    megabytes: float


def held(server: Server) -> Held:
    """The least of a moment: a thread that opens a model, or a connection that is on its way out, is no leak."""
    samples = []
    for _ in range(6):
        samples.append(held_by(server.pids))
        sleep(0.15)
    return Held(*(min(values) for values in zip(*samples, strict=True)))


def held_by(pids: Sequence[int]) -> Held:
    return Held(_entries(pids, "task"), _entries(pids, "fd"), sum(map(_resident_bytes, pids)) / 1e6)


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _entries(pids: Sequence[int], what: str) -> int:
    return sum(len(list(Path(f"/proc/{pid}/{what}").iterdir())) for pid in pids)


def until(found: Callable[[], Any], limit_s: float = 20.0) -> float:
    """Waits for `found` to be true, and says how long that took."""
    begin = monotonic()
    while not found():
        assert monotonic() < begin + limit_s, f"not within {limit_s:g} s"
        sleep(0.02)
    return monotonic() - begin


class Cut(Exception):
    """Raised by what spoils a reply: the connection ends here."""


Spoil = Callable[["Wire", bytes, int], Iterator[bytes]]
"""What becomes of bytes of the server's that are so many bytes into its reply."""


class Wire:
    """A relay on a port of its own that may spoil what the server answers."""

    def __init__(self, target_port: int) -> None:
        self.spoil: Spoil = whole
        self.over = Event()
        self.spoilt = 0
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._live: set[socket.socket] = set()
        self._threads: list[Thread] = []

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @contextmanager
    def running(self) -> Iterator[Wire]:
        accepting = Thread(target=self._accept)
        accepting.start()
        try:
            yield self
        finally:
            self.over.set()
            self._listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            self._listener.close()
            self.drop()
            for thread in self._threads:
                thread.join()

    def drop(self) -> None:
        """Ends every connection."""
        for connection in list(self._live):
            _shut(connection)

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = Thread(target=self._relay, args=(client,))
            thread.start()
            self._threads = [each for each in self._threads if each.is_alive()] + [thread]

    def _relay(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                return
            with server:
                server.settimeout(None)
                self._live |= {client, server}
                position = [0]
                asking = Thread(target=self._requests, args=(client, server, position))
                asking.start()
                self._replies(server, client, position)
                _shut(server)
                _shut(client)
                asking.join()
                self._live -= {client, server}

    def _requests(self, client: socket.socket, server: socket.socket, position: list[int]) -> None:
        with suppress(OSError):
            while (data := client.recv(65536)) and self.spoil is not deaf:
                position[0] = 0
                server.sendall(data)
        _shut(server)

    def _replies(self, server: socket.socket, client: socket.socket, position: list[int]) -> None:
        with suppress(OSError, Cut):
            while data := server.recv(65536):
                begin, position[0] = position[0], position[0] + len(data)
                for piece in self.spoil(self, data, begin):
                    client.sendall(piece)


def deaf(wire: Wire, data: bytes, position: int) -> Iterator[bytes]:
    """The end instead of the request's way to the server."""
    wire.spoilt += 1
    yield from ()
    raise Cut


def whole(wire: Wire, data: bytes, position: int) -> Iterator[bytes]:
    yield data


def late(by_s: float) -> Spoil:
    """Every reply comes so much later."""

    def spoil(wire: Wire, data: bytes, position: int) -> Iterator[bytes]:
        if position == 0:
            wire.over.wait(by_s)
        yield data

    return spoil


def dripping(wire: Wire, data: bytes, position: int) -> Iterator[bytes]:
    """Twenty bytes a second: there is always something, and never an end."""
    for byte in data:
        if wire.over.wait(0.05):
            return
        yield bytes([byte])


def cut(wire: Wire, data: bytes, position: int) -> Iterator[bytes]:
    """Half of what comes, and the end."""
    wire.spoilt += 1
    yield data[: len(data) // 2]
    raise Cut


def closed(wire: Wire, data: bytes, position: int) -> Iterator[bytes]:
    """The end instead of an answer."""
    wire.spoilt += 1
    yield b""
    raise Cut


def garbage(wire: Wire, data: bytes, position: int) -> Iterator[bytes]:
    wire.spoilt += 1
    yield random.Random(wire.spoilt).randbytes(len(data))
    raise Cut


def flipping(first: int) -> Spoil:
    """One bit of the first so many bytes of each reply is another: of its status line, its headers, or what says which
    tensors follow. Bits of the tensors themselves nobody could miss: the protocol has no checksum."""

    def spoil(wire: Wire, data: bytes, position: int) -> Iterator[bytes]:
        if position:
            yield data
            return
        wire.spoilt += 1
        chance = random.Random(wire.spoilt)
        spoilt = bytearray(data)
        spoilt[chance.randrange(min(first, len(data)))] ^= 1 << chance.randrange(8)
        yield bytes(spoilt)

    return spoil


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
