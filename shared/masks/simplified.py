"""Rings with fewer corners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.tensors import Int64

    Float64 = npt.NDArray[np.float64]


def needed(points: Int64, begins: Int64, tolerance: float) -> npt.NDArray[np.bool_]:
    """Which of the points [N, 2] of closed rings, that lie one after another from `begins` [R] on, must stay so that no
    other is farther than `tolerance` from its ring.

    Douglas and Peucker 1973, for all rings and spans of a depth at once. The first point of a ring stays; a ring that
    is smaller than the tolerance is left with one or two.
    """
    stays = np.zeros(len(points), np.bool_)
    stays[begins] = True
    first, behind, last = begins, np.append(begins[1:], len(points)), begins
    while len(first):
        between = behind - first > 1
        first, behind, last = first[between], behind[between], last[between]
        split, square = _farthest(points, first, behind, last)
        far = square > tolerance**2
        stays[split[far]] = True
        first, behind, last = (
            np.concatenate([first[far], split[far]]),
            np.concatenate([split[far], behind[far]]),
            np.concatenate([split[far], last[far]]),
        )
    return stays


def _farthest(points: Int64, first: Int64, behind: Int64, last: Int64) -> tuple[Int64, Float64]:
    """For S spans, of the points behind `first` [S] and before `behind` [S], the one that is farthest from the straight
    line from `first` to `last` [S], and the square of its distance."""
    if not len(first):
        return first, np.zeros(0)
    many = behind - first - 1
    begins = np.cumsum(many) - many
    span = np.repeat(np.arange(len(first)), many)
    place = np.arange(len(span)) - begins[span] + first[span] + 1
    squares = _squared_distances(points[place], points[first][span], points[last][span])
    greatest: Float64 = np.maximum.reduceat(squares, begins)
    reached = np.flatnonzero(squares == greatest[span])
    return place[reached[np.searchsorted(span[reached], np.arange(len(first)))]], greatest


def _squared_distances(points: Int64, begins: Int64, ends: Int64) -> Float64:
    """Of points [N, 2] to the straight lines between `begins` and `ends` [N, 2]."""
    along, offsets = (ends - begins).astype(np.float64), (points - begins).astype(np.float64)
    length = np.maximum((along**2).sum(axis=1), 1e-9)
    share = np.clip((offsets * along).sum(axis=1) / length, 0, 1)
    distances: Float64 = ((offsets - share[:, None] * along) ** 2).sum(axis=1)
    return distances
