"""Automatic masks of a photograph, run lengths included, against the encoder and the decoder alone.

Both in this process, on the same sessions: the raw arm gives ONNX Runtime's own `run` once more what it was given by
ours, picture and points, in the same batches. What ours may cost more pays for decoding the picture, sifting three
masks a point, placing what is kept in the picture and telling it apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared import tasks
from shared.backends import connect
from shared.backends.onnx import OnnxRun
from shared.call import Call
from shared.images import Decoding
from shared.manifest import read_bundle
from shared.parameters import parse
from shared.settings import Settings
from tests.bench.arms import CONTROL, interleaved, timed
from tests.bench.pictures import photo
from tests.bench.report import Result, row

if TYPE_CHECKING:
    from shared.tensors import Tensors

_BUNDLE = "mobile-sam"
_OURS, _RAW = "ours", "encoder and decoder calls"
_TARGET = 1.1
_SIZES = ((1280, 720), (4000, 3000))
_ASKED = {"points_per_side": 16, "points_per_batch": 16}  # a quarter of the usual points, so that a round is short
_MOST_ROUNDS = 10


def run(rounds: int) -> Result:
    settings = Settings.from_environ({})
    bundle = read_bundle(Path(settings.models) / _BUNDLE)
    backend = connect("onnx", settings)
    runs = {name: _Remembering(backend.open(bundle.network(name))) for name in bundle.network_names}
    rows = []
    for width, height in _SIZES:
        look = _look(tasks.build(bundle), runs, photo(width, height))
        for each in runs.values():
            each.given.clear()
        look()
        again = _again(list(runs.values()))
        for each in runs.values():
            each.remembers = False
        arms = {_OURS: timed(look), _OURS + CONTROL: timed(look), _RAW: timed(again)}
        samples = interleaved(arms, min(rounds, _MOST_ROUNDS))
        name = f"automatic masks, {width * height / 1e6:.1f} MP, 256 points"
        rows += [
            row(name, samples, _OURS, _RAW, "wall_ms", at_most=_TARGET),
            row(name, samples, _OURS, _RAW, "cpu_ms"),
        ]
        for each in runs.values():
            each.remembers = True
    return Result(rows)


def _look(task: tasks.Task, runs: dict[str, _Remembering], picture: bytes) -> Callable[[], None]:
    params = parse(task.defaults, _ASKED)

    def look() -> None:
        decoding = Decoding(picture, sys.maxsize)
        plan = task.plan(decoding, params, sys.maxsize)
        assert task.predict(decoding, plan, params, runs, Call("bench", 600)).predictions

    return look


class _Remembering:
    """A Run that remembers what it was given, as long as it is to."""

    def __init__(self, run: Any) -> None:
        assert isinstance(run, OnnxRun)
        self.run = run
        self.given: list[Tensors] = []
        self.remembers = True

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        if self.remembers:
            self.given.append(inputs)
        return self.run(inputs, call)

    def ready(self) -> bool:
        return True

    def close(self) -> None: ...


def _again(runs: list[_Remembering]) -> Callable[[], None]:
    """Every run once more on what it was given, and nothing else."""
    kept = [(each.run, list(each.given)) for each in runs]

    def again() -> None:
        for run, given in kept:
            session = run._session
            assert session is not None
            for inputs in given:
                session.run(run._outputs, inputs)

    return again
