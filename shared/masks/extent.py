"""How far a mask reaches, found without the mask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shared.masks import cells, enlargement
from shared.masks.enlargement import Enlargement
from shared.masks.placed import Measured
from shared.masks.taps import Axis, Grid

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.predictions import Box
    from shared.tensors import Float32, Int64

    Bits = npt.NDArray[np.bool_]


class Trimmed(NamedTuple):
    """The part of a plane outside of which nothing is above a threshold, and the way of that part to the picture."""

    plane: Float32
    way: Enlargement

    def mask(self, threshold: float) -> Measured:
        """What shared.masks.enlargement.mask gives for the whole plane."""
        return enlargement.mask(self.plane, self.way, threshold, _covered(self.way.grid))

    def stability(self, threshold: float, offset: float) -> np.float32:
        """calculate_stability_score (segment_anything/utils/amg.py) in its own precision; 0 where nothing is above the
        lower threshold."""
        levels = (threshold + offset, threshold - offset)
        inner, outer = (np.float32(count) for count in enlargement.counts(self.plane, self.way, levels))
        return inner / outer if outer else np.float32(0)

    def box(self, threshold: float) -> Box | None:
        """The box of `mask`; None where that has no pixel. Only cells that reach beyond those which lie inside the mask
        as a whole are computed."""
        return _box(self, np.float32(threshold))


def trimmed(plane: Float32, way: Enlargement, threshold: float) -> Trimmed | None:
    """A copy of what there is of `plane` [h, w] float32 around everything that is above `threshold`; None where nothing
    is."""
    level = np.float32(threshold)
    rows = _reach(plane.max(axis=1) > level, way.grid.rows)
    columns = None if rows is None else _reach(plane[rows.begin : rows.end].max(axis=0) > level, way.grid.columns)
    if rows is None or columns is None:
        return None
    part = plane[rows.begin : rows.end, columns.begin : columns.end].copy()
    return Trimmed(part, Enlargement(part.shape, way.source_hw, Grid(rows.axis, columns.axis), way.crop))


class _Reach(NamedTuple):
    """The elements from `begin` to `end` of one side of a plane, and the cells that are made of them alone."""

    begin: int
    end: int
    axis: Axis


def _reach(above: Bits, axis: Axis) -> _Reach | None:
    """The cells that are made of at least one element that is `above`, or lie between such."""
    touched = np.flatnonzero(above[axis.taps].any(axis=0))
    if not len(touched):
        return None
    part = axis.part(int(touched[0]), int(touched[-1]) + 1)
    begin, end = int(part.taps.min()), int(part.taps.max()) + 1
    return _Reach(begin, end, replace(part, taps=part.taps - begin))


def _covered(grid: Grid) -> tuple[float, float, float, float]:
    rows, columns = grid.rows.starts, grid.columns.starts
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def _box(trimmed: Trimmed, level: np.float32) -> Box | None:
    plane, way = trimmed
    rows, columns = way.grid
    least, greatest = cells.extremes(plane, way.grid)
    inside, unsure = least > level, greatest > level
    (top, bottom), (left, right) = _span(inside, 1), _span(inside, 0)
    unsure[top:bottom, left:right] = False
    found_y, found_x = _pixels(rows, top, bottom), _pixels(columns, left, right)
    for i, j, values in cells.computed(plane, way.grid, unsure):
        above = values > level
        found_y += _ends(rows.pixels.take(i, 1)[above.any(axis=1)])
        found_x += _ends(columns.pixels.take(j, 1)[above.any(axis=0)])
    if not found_y:
        return None
    y0, x0 = way.origin
    return (
        float(min(found_x) + x0),
        float(min(found_y) + y0),
        float(max(found_x) + x0 + 1),
        float(max(found_y) + y0 + 1),
    )


def _span(inside: Bits, axis: int) -> tuple[int, int]:
    """From the first to behind the last of those that are there along the other axis."""
    places = np.flatnonzero(inside.any(axis=axis))
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _pixels(axis: Axis, first: int, last: int) -> list[int]:
    """The first and the last pixel of the cells from `first` to `last`; none where there are no cells."""
    return [int(axis.starts[first]), int(axis.starts[last]) - 1] if first < last else []


def _ends(places: Int64) -> list[int]:
    return [int(places.min()), int(places.max())] if len(places) else []
