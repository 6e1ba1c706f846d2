"""One bundle measured in a process of its own, which has done nothing else.

    python -m model_server.staging.measuring

takes one Work or Runs as JSON on stdin and gives one Found, Ran or Failed on what was stdout: frameworks print there
too, so they are given stderr instead. See model_server.staging.profile for the other end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

import msgspec

from model_server.staging.curves import Size, shape
from shared import backends
from shared.call import Call
from shared.errors import ConfigurationError, Failure
from shared.host import cores, forget_peak, memory
from shared.manifest import read_bundle
from shared.service import Service
from shared.settings import Settings

_LIMIT_S = 600.0
_RUNS, _RUNS_S = 15, 5.0
_RUNS_OF_A_SIZE = 3
_MODULES = {"onnx": "onnxruntime", "torchscript": "torch", "tensorflow": "tensorflow", "litert": "ai_edge_litert"}


class Work(msgspec.Struct, frozen=True, tag=True):
    """Have `backend` predict the picture in a file with the bundle in a folder, `concurrency` times at once."""

    folder: str
    backend: str
    picture: str
    concurrency: int = 1
    parameters: dict[str, Any] = {}


class Runs(msgspec.Struct, frozen=True, tag=True):
    """Have `backend` run one network of the bundle in a folder on zeros, `concurrency` times at once."""

    folder: str
    backend: str
    network: str
    size: Size
    concurrency: int = 1


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
    opening_mb: float
    resident_mb: float


class Ran(msgspec.Struct, frozen=True, tag=True):
    """The most memory that the runs took together, and how long the longest lasted."""

    peak_mb: float
    s: float


class Failed(msgspec.Struct, frozen=True, tag=True):
    why: str


Reply: TypeAlias = Found | Ran | Failed


def _measured(work: Work) -> Reply:
    settings = _settings(work)
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
    opened = memory()
    predict = partial(service.predict, served, source, work.parameters)
    with ThreadPoolExecutor(work.concurrency) as pool:
        asked = [pool.submit(_timed, predict) for _ in range(work.concurrency)]
        (first, *warm), *_ = [each.result() for each in asked]
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
        opened.peak_mb - imported.now_mb,
        opened.now_mb - imported.now_mb,
    )


def _ran(work: Runs) -> Reply:
    import numpy as np

    bundle = read_bundle(Path(work.folder))
    network = bundle.network(work.network)
    run = backends.connect(work.backend, _settings(work)).open(network)
    zeros = {
        spec.name: np.zeros(shape(spec, work.size, bundle.model.preprocess), spec.dtype) for spec in network.inputs
    }
    before, begin = forget_peak(), perf_counter()
    with ThreadPoolExecutor(work.concurrency) as pool:
        for _ in range(_RUNS_OF_A_SIZE):  # what a run takes changes once its sizes are known
            for each in [pool.submit(run, zeros, Call("profile", _LIMIT_S)) for _ in range(work.concurrency)]:
                each.result()
    return Ran(memory().peak_mb - before.now_mb, (perf_counter() - begin) / _RUNS_OF_A_SIZE)


def _settings(work: Work | Runs) -> Settings:
    return Settings(models=work.folder, backend=work.backend)  # type: ignore[arg-type]


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


def _reply(work: Work | Runs) -> Reply:
    try:
        return _measured(work) if isinstance(work, Work) else _ran(work)
    except (ConfigurationError, Failure, OSError) as error:
        return Failed(str(error))


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        out.write(msgspec.json.encode(_reply(msgspec.json.decode(sys.stdin.buffer.read(), type=Work | Runs))))
