"""One bundle measured in a process of its own, which has done nothing else.

    python -m model_server.staging.measuring

takes one Work as JSON on stdin and gives one Found or Failed on what was stdout: frameworks print there too, so they
are given stderr instead. See model_server.staging.profile for the other end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

import msgspec

from shared import backends
from shared.call import Call
from shared.errors import ConfigurationError, Failure
from shared.host import cores, memory
from shared.service import Service
from shared.settings import Settings

_LIMIT_S = 600.0
_RUNS, _RUNS_S = 15, 5.0
_MODULES = {"onnx": "onnxruntime", "torchscript": "torch", "tensorflow": "tensorflow", "litert": "ai_edge_litert"}


class Work(msgspec.Struct, frozen=True):
    """Have `backend` predict the picture in a file with the bundle in a folder."""

    folder: str
    backend: str
    picture: str


class Found(msgspec.Struct, frozen=True, tag=True):
    """As in shared.manifest.Profile and Measured."""

    runtime: str
    threads: int
    load_s: float
    first_ms: float
    ms: float
    infer_ms: float
    peak_mb: float
    total_mb: float


class Failed(msgspec.Struct, frozen=True, tag=True):
    why: str


Reply: TypeAlias = Found | Failed


def _measured(work: Work) -> Reply:
    settings = Settings(models=work.folder, backend=work.backend)  # type: ignore[arg-type]
    service, source = Service(settings), Path(work.picture).read_bytes()
    served = service.find(None)
    served.parse({}, Call("profile", _LIMIT_S))  # the family, which brings numpy and Pillow
    backends.connect(work.backend, settings)
    imported = memory()
    begin = perf_counter()
    served.open()
    load_s = perf_counter() - begin
    if served.reason:
        return Failed(served.reason)
    first, *warm = _timed(lambda call: service.predict(served, source, {}, call))
    most = memory().peak_mb
    return Found(
        _runtime(work.backend),
        settings.threads or cores(),
        load_s,
        first[0],
        median(ms for ms, _ in warm),
        median(infer_ms for _, infer_ms in warm),
        most - imported.now_mb,
        most,
    )


def _timed(predict: Callable[[Call], Any]) -> list[tuple[float, float]]:
    """Milliseconds of whole predictions and of their networks, at least two, for some seconds at most."""
    found: list[tuple[float, float]] = []
    begin = perf_counter()
    while len(found) < 2 or (len(found) <= _RUNS and perf_counter() - begin < _RUNS_S):
        call = Call("profile", _LIMIT_S)
        started = perf_counter()
        predict(call)
        found.append(((perf_counter() - started) * 1e3, call.stages_ms.get("infer", 0.0)))
    return found


def _runtime(backend: str) -> str:
    name = _MODULES[backend]
    return f"{name} {getattr(sys.modules.get(name), '__version__', 'of unknown version')}"


def _reply(work: Work) -> Reply:
    try:
        return _measured(work)
    except (ConfigurationError, Failure, OSError) as error:
        return Failed(str(error))


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        out.write(msgspec.json.encode(_reply(msgspec.json.decode(sys.stdin.buffer.read(), type=Work))))
