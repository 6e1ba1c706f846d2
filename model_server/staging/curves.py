"""How much memory runs of a network take by their size: which sizes to measure, and the line over what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

from shared.manifest import Curve, Preprocess
from shared.tensors import TensorSpec

_SIDES = (64, 128, 256, 384, 512, 768, 1024)
_BATCHES = (1, 4, 16, 32, 64)
_POINTS = 2  # of an axis that is neither the batch nor a side: a prompt's points
_ROOM = 1.03  # for what differs from one process to the next
_ROOM_MB = 2.0


class Size(NamedTuple):
    """What stands for the axes that a network leaves open."""

    batch: int
    side: int


class Point(NamedTuple):
    """What one run took whose inputs had so many elements together."""

    elements: int
    peak_mb: float


def sizes(inputs: Sequence[TensorSpec], preprocess: Preprocess) -> list[Size]:
    """Those to measure, the smallest first: pictures of several sides; where those are fixed, several batches; one
    where nothing is open."""
    if any(_side_axes(spec, preprocess) for spec in inputs):
        step = preprocess.multiple_of
        return [Size(1, -(-side // step) * step) for side in _SIDES]
    if any(spec.shape and spec.shape[0] is None for spec in inputs):
        return [Size(batch, 1) for batch in _BATCHES]
    return [Size(1, 1)]


def shape(spec: TensorSpec, size: Size, preprocess: Preprocess) -> list[int]:
    """The shape of an input at `size`."""
    sides = _side_axes(spec, preprocess)
    free = {
        axis: size.batch if axis == 0 else size.side if axis in sides else _POINTS for axis in range(len(spec.shape))
    }
    return [free[axis] if fixed is None else fixed for axis, fixed in enumerate(spec.shape)]


def elements(inputs: Sequence[TensorSpec], size: Size, preprocess: Preprocess) -> int:
    return sum(prod(shape(spec, size, preprocess)) for spec in inputs)


def fitted(points: Sequence[Point]) -> Curve:
    """The line that lies over every point, and of those that do the one that lies least over all of them together: it
    goes along an edge of the points' upper hull. It may begin below zero, where no run is."""
    least = min(_lines(points), key=lambda line: sum(line[0] + line[1] * point.elements for point in points))
    fixed, slope = least
    return Curve(round(fixed * _ROOM + _ROOM_MB, 2), round(slope * _ROOM * 1e6, 2))


def _lines(points: Sequence[Point]) -> Iterator[tuple[float, float]]:
    yield max(point.peak_mb for point in points), 0.0
    for one, other in combinations(points, 2):
        if one.elements == other.elements:
            continue
        slope = (other.peak_mb - one.peak_mb) / (other.elements - one.elements)
        fixed = one.peak_mb - slope * one.elements
        if slope > 0 and all(fixed + slope * point.elements >= point.peak_mb - 1e-6 for point in points):
            yield fixed, slope


def _side_axes(spec: TensorSpec, preprocess: Preprocess) -> list[int]:
    """The open axes of a picture's height and width."""
    if len(spec.shape) != len(preprocess.layout):
        return []
    axes = (preprocess.layout.index("H"), preprocess.layout.index("W"))
    return [axis for axis in axes if spec.shape[axis] is None]
