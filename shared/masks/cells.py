"""Planes enlarged and compared with a threshold, without the enlarged plane.

A pixel's value lies between the least and the greatest of the elements that it is made of. Where both are on one side
of the threshold the pixels of a cell need not be computed, which leaves those along the mask's edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shared.masks.taps import Axis, Grid

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.tensors import Float32, Int64

    Bits = npt.NDArray[np.bool_]

_BAND_PIXELS = 1 << 21
_COMPUTED_AT_ONCE = 1 << 18


class Band(NamedTuple):
    """A part of a mask: `columns` [w, h] bool, whose first axis is x, at (`top`, `left`) of the picture."""

    top: int
    left: int
    columns: Bits


def bands(plane: Float32, grid: Grid, threshold: float) -> Iterator[Band]:
    """Where the enlarged `plane` [h, w] is above `threshold`, from left to right; what is left out is background."""
    level = np.float32(threshold)
    rows, columns = grid
    if not (rows.taps.size and columns.taps.size):
        return
    least, greatest = extremes(plane, grid)
    inside = least > level
    unsure = inside ^ (greatest > level)
    most = _BAND_PIXELS // int(rows.starts[-1] - rows.starts[0])
    for left, right in _split(columns.starts, most):
        part = Grid(rows, columns.part(left, right))
        yield _band(plane, part, inside[:, left:right], unsure[:, left:right], level)


def counts(plane: Float32, grid: Grid, thresholds: Sequence[float]) -> tuple[int, ...]:
    """How many pixels of the enlarged `plane` [h, w] are above each of `thresholds`."""
    least, greatest = extremes(plane, grid)
    rows, columns = grid
    levels = [np.float32(threshold) for threshold in thresholds]
    unsure = np.zeros(least.shape, np.bool_)
    for level in levels:
        unsure |= (least > level) != (greatest > level)
    found = [int(rows.sizes @ ((least > level) & ~unsure) @ columns.sizes) for level in levels]
    own_rows, own_columns = _own(rows), _own(columns)
    for i, j, values in computed(plane, grid, unsure):
        own = own_rows[:, None, i] & own_columns[None, :, j]
        for number, level in enumerate(levels):
            found[number] += int(np.count_nonzero((values > level) & own))
    return tuple(found)


def _band(plane: Float32, grid: Grid, inside: Bits, unsure: Bits, level: np.float32) -> Band:
    rows, columns = grid
    tall = np.repeat(inside.T, rows.sizes, axis=1)
    bits = np.repeat(tall, columns.sizes, axis=0)
    flat, y = bits.reshape(-1), rows.pixels - rows.starts[0]
    x = (columns.pixels - columns.starts[0]) * bits.shape[1]
    for i, j, values in computed(plane, grid, unsure):
        flat[y.take(i, 1)[:, None] + x.take(j, 1)] = values > level
    return Band(int(rows.starts[0]), int(columns.starts[0]), bits)


def reached(plane: Float32, grid: Grid, threshold: float) -> Grid:
    """The cells, in one block, outside of which no element of `plane` [h, w] that is above `threshold` has a part."""
    above, parts = plane > np.float32(threshold), []
    for side, across in ((grid.rows, 1), (grid.columns, 0)):
        found = np.flatnonzero(np.asarray(above.any(axis=across))[side.taps].any(axis=0))
        parts.append(side.part(int(found[0]), int(found[-1]) + 1) if len(found) else side.part(0, 0))
    return Grid(*parts)


def extremes(plane: Float32, grid: Grid) -> tuple[Float32, Float32]:
    """The least and the greatest element [R, C] that each cell is made of."""
    rows, columns = grid
    least = greatest = plane[rows.taps[0]]
    for taps in rows.taps[1:]:
        tapped = plane[taps]
        least, greatest = np.minimum(least, tapped), np.maximum(greatest, tapped)
    low, high = least.T, greatest.T
    least, greatest = low[columns.taps[0]], high[columns.taps[0]]
    for taps in columns.taps[1:]:
        least, greatest = np.minimum(least, low[taps]), np.maximum(greatest, high[taps])
    return least.T, greatest.T


def computed(plane: Float32, grid: Grid, wanted: Bits) -> Iterator[tuple[Int64, Int64, Float32]]:
    """The pixels' values [S, S, n] of the wanted cells, rows first, with the cells' places [n] and [n], some at a
    time."""
    rows, columns = grid
    all_i, all_j = (places.astype(np.int64, copy=False) for places in np.nonzero(wanted))
    at_once = max(1, _COMPUTED_AT_ONCE // (len(rows.pixels) * len(columns.pixels)))
    for begin in range(0, len(all_i), at_once):
        i, j = all_i[begin : begin + at_once], all_j[begin : begin + at_once]
        elements = plane[rows.taps.take(i, 1)[:, None], columns.taps.take(j, 1)]
        across = rows.weights.take(i, 2)[:, :, None] * elements[:, None]
        values = _summed(columns.weights.take(j, 2)[:, None] * _summed(across).swapaxes(0, 1)[:, :, None])
        yield i, j, values


def _summed(terms: Float32) -> Float32:
    """The sum over the first axis, which is short."""
    total: Float32 = terms[0]
    for term in terms[1:]:
        total = np.add(total, term, out=total)
    return total


def _own(side: Axis) -> Bits:
    """Which of a cell's S pixels [S, C] are not repeated."""
    own: Bits = np.arange(len(side.pixels))[:, None] < side.sizes
    return own


def _split(starts: Int64, most: int) -> Iterator[tuple[int, int]]:
    """The cells in groups of at most `most` pixels, or of one cell."""
    begin, cells = 0, len(starts) - 1
    while begin < cells:
        end = int(np.searchsorted(starts, starts[begin] + most, side="right")) - 1
        end = max(end, begin + 1)
        yield begin, end
        begin = end
