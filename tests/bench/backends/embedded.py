"""The default detector by our TorchScript and TensorFlow backends against the frameworks' own calls.

Each side is a process of its own under the interpreter that has the framework, with as many threads as ours. A script
may be called as it was loaded, frozen, or frozen and without the executor that compiles it anew for what it has seen;
the target holds against the fastest.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from shared.host import cores
from shared.manifest import NetworkSpec, read_bundle
from shared.settings import Settings
from tests.bench.arms import Samples
from tests.bench.backends.sides import Sides, interpreter, measured, side
from tests.bench.report import Result, Row, row

_BUNDLE = "coco-ssd-mobilenet-v2"
_CALLS = 10
_TARGET = 1.05
_SCRIPTS = {"module": "call", "frozen module": "frozen", "frozen, unprofiled": "unprofiled"}


def run_torchscript(rounds: int) -> Result:
    network = _network()
    file = str(network.folder / network.artifacts["torchscript"].file)
    python, asked = interpreter("torchscript"), _asked(network)
    raw = {name: side(f"raw_torchscript:{way}", file, *asked, python=python) for name, way in _SCRIPTS.items()}
    return _compared("torchscript", network, python, raw, rounds)


def run_tensorflow(rounds: int) -> Result:
    network = _network()
    folder = str((network.folder / network.artifacts["tensorflow"].file).parent)
    python = interpreter("tensorflow")
    raw = {"signature": side("raw_tensorflow:call", folder, *_asked(network), python=python)}
    return _compared("tensorflow", network, python, raw, rounds)


def _network() -> NetworkSpec:
    return read_bundle(Path(Settings.from_environ({}).models) / _BUNDLE).network("detector")


def _asked(network: NetworkSpec) -> tuple[str, ...]:
    return (str(cores()), str(network.inputs[0].shape[1]), *(spec.name for spec in network.outputs))


def _compared(backend: str, network: NetworkSpec, python: str, raw: Sides, rounds: int) -> Result:
    ours = f"our Run, {backend}"
    own = side("ours:run", python=python, models=str(network.folder), backend=backend, threads=str(cores()))
    samples = measured([{ours: own, **raw}], [ours], rounds, _CALLS)
    fastest = min(raw, key=lambda name: _wall_ms(samples, name))
    rows: list[Row] = []
    for name in raw:
        at_most = _TARGET if name == fastest else None
        rows.append(row(backend, samples, ours, name, "wall_ms", at_most=at_most))
        rows.append(row(backend, samples, ours, name, "cpu_ms", at_most=at_most))
    return Result(rows)


def _wall_ms(samples: Samples, name: str) -> float:
    return median(sample.wall_ms for sample in samples[name])
