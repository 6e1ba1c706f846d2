"""The masks of 20 and of 100 instances on 1280 x 720 as run lengths: time, memory, and the size of the reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import msgspec
import numpy as np

from shared.masks import rle
from shared.predictions import Rle
from tests.bench import placing
from tests.bench.arms import CONTROL, Arm, Sample, interleaved, timed
from tests.bench.placing import OURS, USUAL, Way
from tests.bench.processes import child, environment, python
from tests.bench.report import Result, Row, row

_INSTANCES = (20, 100)
_TARGET, _TARGET_MEMORY = 1 / 7, 1 / 20
_TARGET_BYTES, _TARGET_REPLY = 1 / 1000, 1 / 50
_MEMORY_ROUNDS, _REPLY_ROUNDS = 3, 5
_NESTED = "nested JSON"
_ALIKE = 1e-5  # of the pixels: sums are taken in another order


def run(rounds: int) -> Result:
    rows: list[Row] = []
    ways = placing.ways()
    _check_alike(ways)
    for instances in _INSTANCES:
        found = placing.scene(instances)
        arms: dict[str, Arm] = {name: timed(partial(way, found)) for name, way in ways.items()}
        samples = interleaved(arms | {OURS + CONTROL: arms[OURS]}, rounds)
        name = f"masks of {instances} instances"
        targets = zip(USUAL, (_TARGET, None), strict=True)  # the resize that there is, and the fastest known for scale
        rows += [row(name, samples, OURS, usual, "wall_ms", at_most=target) for usual, target in targets]
        apart: dict[str, Arm] = {name: partial(_placed_apart, name, instances) for name in ways}
        samples = interleaved(apart | {OURS + CONTROL: apart[OURS]}, min(rounds, _MEMORY_ROUNDS))
        name = f"memory of {instances} masks"
        rows += [row(name, samples, OURS, usual, "memory_mb", at_most=_TARGET_MEMORY) for usual in USUAL]
    return Result(rows + _reply(ways[OURS], min(rounds, _REPLY_ROUNDS)))


def _placed_apart(way: str, instances: int) -> Sample:
    with child(python("-m", "tests.bench.placing", way, str(instances)), environment()) as process:
        return Sample(memory_mb=float(process.ask()))


def _reply(way: Way, rounds: int) -> list[Row]:
    """From 20 planes to the masks of a reply as JSON: our run lengths, and rows of zeros and ones."""
    found = placing.scene(20)
    known: dict[str, Callable[[], bytes]] = {
        OURS: lambda: msgspec.json.encode(way(found)),
        _NESTED: lambda: _nested(way(found)),
    }
    arms: dict[str, Arm] = {name: timed(write) for name, write in known.items()}
    samples = interleaved(arms | {OURS + CONTROL: arms[OURS]}, rounds)
    sizes = {name: [Sample(memory_mb=len(write()) / 1e6)] for name, write in known.items()}
    sizes[OURS + CONTROL] = sizes[OURS]
    return [
        row("reply of 20 masks, its bytes", sizes, OURS, _NESTED, "memory_mb", at_most=_TARGET_BYTES),
        row("reply of 20 masks, its making", samples, OURS, _NESTED, "wall_ms", at_most=_TARGET_REPLY),
    ]


def _nested(masks: list[Rle]) -> bytes:
    return json.dumps([_whole(mask).astype(int).tolist() for mask in masks]).encode()


def _whole(mask: Rle) -> np.ndarray:
    placed, plane = rle.decoded(mask), np.zeros(mask.size, np.bool_)
    height, width = placed.bits.shape
    plane[placed.top : placed.top + height, placed.left : placed.left + width] = placed.bits
    return plane


def _check_alike(ways: dict[str, Way]) -> None:
    """Raises AssertionError where a way does not make the masks that ours makes."""
    found = placing.scene(20)
    ours = [_whole(mask) for mask in ways[OURS](found)]
    for name, way in ways.items():
        differing = [int(np.count_nonzero(_whole(mask) != our)) for mask, our in zip(way(found), ours, strict=True)]
        assert sum(differing) <= _ALIKE * ours[0].size * len(ours), (name, differing)
