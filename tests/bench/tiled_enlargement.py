"""Pictures enlarged twice by the shipped model, encoding included: in tiles against one that fits, a megapixel; and how
much memory the whole process ever has for 12 megapixels.

Run as a program with a width, a height and the longest side that tiles may have (0: as the task plans it for 1.5 GB),
it enlarges once for every line that it reads, and writes what that took.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from shared import tasks
from shared.backends import connect
from shared.call import Call
from shared.images import Decoding
from shared.manifest import read_bundle
from shared.settings import Settings
from tests.bench.arms import CONTROL, Arm, Sample, interleaved, stopwatch
from tests.bench.pictures import ROOT, photo
from tests.bench.processes import Child, child, environment, python, status_mb
from tests.bench.report import Result, absolute, row

_BUNDLE = ROOT / "model_server/models/esrgan-slim"
_SCALE, _NETWORK = 2, "x2"
_TILED, _UNTILED, _LARGE = (2000, 1500), (640, 480), (4000, 3000)
_AS_PLANNED, _WHOLE = 0, 1 << 20
_ROUNDS, _MEMORY_ROUNDS = 8, 1
_TARGET, _TARGET_MB = 1.15, 1500.0
_OURS, _THEIRS = "3 MP in tiles, a MP", "0.3 MP untiled, a MP"


def run(rounds: int) -> Result:
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(child(_program(*size, side), environment()))
            for name, size, side in ((_OURS, _TILED, _AS_PLANNED), (_THEIRS, _UNTILED, _WHOLE))
        }
        arms: dict[str, Arm] = {name: partial(_enlarged, process) for name, process in started.items()}
        samples = interleaved(arms | {_OURS + CONTROL: arms[_OURS]}, min(rounds, _ROUNDS))
    name = "tiled enlargement x2"
    rows = [row(name, samples, _OURS, _THEIRS, "wall_ms", at_most=_TARGET)]
    rows.append(row(name, samples, _OURS, _THEIRS, "cpu_ms", at_most=_TARGET))
    large = "12 MP, whole process"
    arm: Arm = partial(_enlarged_apart, _program(*_LARGE, _AS_PLANNED))
    samples = interleaved({large: arm, large + CONTROL: arm}, min(rounds, _MEMORY_ROUNDS))
    return Result([*rows, absolute(name, samples, large, "memory_mb", _TARGET_MB)])


def _program(width: int, height: int, side: int) -> list[str]:
    return python("-m", "tests.bench.tiled_enlargement", str(width), str(height), str(side))


def _enlarged(process: Child) -> Sample:
    return Sample(**json.loads(process.ask("again")))


def _enlarged_apart(command: list[str]) -> Sample:
    with child(command, environment()) as process:
        return _enlarged(process)


def _main(width: int, height: int, side: int) -> None:
    bundle, data = read_bundle(Path(_BUNDLE)), photo(width, height)
    task = tasks.build(bundle)
    settings = Settings.from_environ({})
    runs = {_NETWORK: connect(settings.backend, settings).open(bundle.network(_NETWORK))}
    params = msgspec.structs.replace(task.defaults, scale=_SCALE)
    megapixels = width * height / 1e6
    for _ in sys.stdin:
        with stopwatch() as watch:
            picture = Decoding(data, width * height)
            plan = task.plan(picture, params, int(_TARGET_MB * 1e6))
            plan = msgspec.structs.replace(plan, side=side) if side else plan
            task.predict(picture, plan, params, runs, Call("bench", 600))
        took = Sample(watch.sample.wall_ms / megapixels, watch.sample.cpu_ms / megapixels, status_mb("self", "VmHWM"))
        sys.stdout.write(
            json.dumps({"wall_ms": took.wall_ms, "cpu_ms": took.cpu_ms, "memory_mb": took.memory_mb}) + "\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
