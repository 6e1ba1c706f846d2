"""One backend in a process of its own: opens a bundle as the service does, and answers pictures, memory and time.

    python -m model_server.comparison.answering

takes one JSON message a line on stdin and gives one a line on what was stdout: frameworks print there too, so they are
given stderr instead. Written for `parity` and for measurements; see model_server.comparison.arms for the other end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import IO, Any, TypeAlias

import msgspec

from model_server.comparison.weighing import Weigh, Weighed, weighed
from shared.call import Call
from shared.errors import ConfigurationError, Failure
from shared.host import memory
from shared.predictions import Detection
from shared.service import Service
from shared.settings import Settings

_TIMEOUT_S = 600.0


class Open(msgspec.Struct, frozen=True, tag=True):
    """Open the only or default bundle of these settings (see shared.settings); `warm_up` runs it once."""

    settings: dict[str, Any]
    warm_up: bool = True


class Predict(msgspec.Struct, frozen=True, tag=True):
    """Answer the picture in the file `picture`."""

    picture: str
    params: dict[str, Any] = {}


class Measure(msgspec.Struct, frozen=True, tag=True):
    """Say how much memory the process has."""


class Opened(msgspec.Struct, frozen=True, tag=True):
    """`load_s` is what opening took, the framework's import included."""

    load_s: float


class Predicted(msgspec.Struct, frozen=True, tag=True):
    detections: tuple[Detection, ...]
    wall_ms: float
    stages_ms: dict[str, float]
    cpu_ms: float


class Measured(msgspec.Struct, frozen=True, tag=True):
    """Resident memory in megabytes: now, and at the highest."""

    resident_mb: float
    peak_mb: float


class NotRun(msgspec.Struct, frozen=True, tag=True):
    """The backend is not installed here."""

    why: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The backend is there and does not do it."""

    why: str


Request: TypeAlias = Open | Predict | Measure | Weigh
Reply: TypeAlias = Opened | Predicted | Measured | Weighed | NotRun | Failed


class Answering:
    """What the process has opened."""

    def __init__(self) -> None:
        self._service: Service | None = None

    def reply(self, request: Request) -> Reply:
        try:
            if isinstance(request, Open):
                return self._open(request)
            if isinstance(request, Weigh):
                return weighed(request)
            return self._predict(request) if isinstance(request, Predict) else _measured()
        except (ConfigurationError, Failure, OSError) as error:
            return Failed(str(error))

    def _open(self, request: Open) -> Reply:
        begin = perf_counter()
        settings = msgspec.convert(request.settings, Settings)
        self._service = Service(settings)
        served = self._service.find(None)
        served.open(warm_up=request.warm_up)
        load_s = perf_counter() - begin
        if served.state != "ready":
            why = served.reason or f"the model is {served.state}"
            return NotRun(why) if "not installed" in why else Failed(why)
        return Opened(load_s)

    def _predict(self, request: Predict) -> Reply:
        if self._service is None:
            return Failed("nothing has been opened")
        data = Path(request.picture).read_bytes()
        call = Call("parity", _TIMEOUT_S)
        begin, cpu_s = perf_counter(), process_time()
        answer = self._service.predict(self._service.find(None), data, request.params, call)
        wall_ms, cpu_ms = (perf_counter() - begin) * 1e3, (process_time() - cpu_s) * 1e3
        return Predicted(answer.prediction.predictions, wall_ms, dict(call.stages_ms), cpu_ms)


def _measured() -> Measured:
    found = memory()
    return Measured(found.now_mb, found.peak_mb)


def _talk(reply: Callable[[Request], Reply], lines: IO[bytes], out: IO[bytes]) -> None:
    for line in lines:
        out.write(msgspec.json.encode(reply(msgspec.json.decode(line, type=Request))) + b"\n")
        out.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        _talk(Answering().reply, sys.stdin.buffer, out)
