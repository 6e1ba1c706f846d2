"""Containers under way, asked over HTTP as soon as they answer."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep

from docker.matrix.engine import Engine
from model_server.failures import Stopped

# The engine's own labels are not ours to read; this one tells our containers from others.
LABEL = "thinlens.measured"
_ANSWER_S = 180.0
_STEP_S = 0.003
_LOOK_EVERY_S = 1.0
_UNITS = {"B": 1.0, "kB": 1e3, "KiB": 2.0**10, "MB": 1e6, "MiB": 2.0**20, "GB": 1e9, "GiB": 2.0**30}
_AMOUNT = re.compile(r"(?P<number>[0-9.]+)(?P<unit>[A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Container:
    """A container that was made; it answers on `port` of loopback once it is started."""

    engine: Engine
    image: str
    identity: str
    port: int

    def start(self) -> None:
        self.engine.docker("start", self.identity)

    def wait_for(self, method: str, path: str, body: bytes | None = None) -> None:
        """Asks until the answer is 200. Raises Stopped where the container ends or takes too long."""
        begin = looked = monotonic()
        while (status := self._asked(method, path, body)) != http.client.OK:
            now = monotonic()
            if now - begin > _ANSWER_S:
                raise Stopped(
                    f"{self.image}: {path} gave {status or 'no answer'} for {_ANSWER_S:g} s: {self._last_words()}"
                )
            if now - looked > _LOOK_EVERY_S:
                self._check_runs()
                looked = now
            sleep(_STEP_S)

    def memory_mb(self) -> float:
        """The working set, which a memory limit counts: what is used, less files that nobody has read lately."""
        used = self.engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", self.identity)
        return megabytes(used.partition("/")[0])

    def _asked(self, method: str, path: str, body: bytes | None) -> int | None:
        """The status of the answer, or None where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _check_runs(self) -> None:
        state = self.engine.docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", self.identity)
        if not state.startswith("running"):
            raise Stopped(f"{self.image}: the container ended ({state}): {self._last_words()}")

    def _last_words(self) -> str:
        return self.engine.logs(self.identity).replace("\n", " | ")


@contextmanager
def container(engine: Engine, image: str, port: int, options: Sequence[str] = ()) -> Iterator[Container]:
    """A container of `image`, its `port` on a free one of loopback; not started, and removed at the end."""
    free = _free_port()
    given = ["--label", LABEL, "--no-healthcheck", "--publish", f"127.0.0.1:{free}:{port}", *options]
    identity = engine.docker("create", *given, image)
    try:
        yield Container(engine, image, identity, free)
    finally:
        engine.docker("rm", "--force", "--volumes", identity)


@contextmanager
def network(engine: Engine, name: str) -> Iterator[str]:
    engine.docker("network", "create", "--label", LABEL, name)
    try:
        yield name
    finally:
        engine.docker("network", "rm", name)


def megabytes(text: str) -> float:
    """An amount of memory as the engine writes it, in MB of 1e6 bytes."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or match["unit"] not in _UNITS:
        raise Stopped(f"expected an amount of memory from the engine, found {text!r}")
    return float(match["number"]) * _UNITS[match["unit"]] / 1e6


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
