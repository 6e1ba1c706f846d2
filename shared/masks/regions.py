"""The connected pieces of a mask and of its background, found among its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shared.masks import rle as run_lengths
from shared.masks.placed import Measured
from shared.predictions import Rle

if TYPE_CHECKING:
    from shared.tensors import Int64


def without_small_regions(rle: Rle, least_area: int) -> tuple[Measured, bool]:
    """The mask with holes under `least_area` pixels filled, then without pieces under it, and whether that changed it.

    The largest piece stays even where all are small. Pixels that touch at a corner belong together, in holes as in
    pieces, and what lies between the mask and the picture's edge is a hole as any other (segment_anything/utils/amg.py,
    remove_small_regions). Raises ValueError where `rle` is malformed.
    """
    height, width = rle.size
    found = run_lengths.by_column(run_lengths.to_runs(rle), height)
    around = background(found, height, width)
    small_holes = _areas(around, pieces(around, height)) < least_area
    filled = _joined(np.concatenate([found, around[small_holes]]), height)
    piece = pieces(filled, height)
    areas = _areas(filled, piece)
    small = areas < least_area
    if len(filled) and small.all():
        small = piece != piece[areas.argmax()]
    return run_lengths.measure(filled[~small], rle.size), bool(small_holes.any() or small.any())


def pieces(runs: Int64, height: int) -> Int64:
    """The number of each run's piece [N], the same for runs [N, 2] that touch at a side or a corner."""
    first, second = _neighbours(runs, height)
    piece: Int64 = np.arange(len(runs))
    while True:
        one, other = piece[first], piece[second]
        apart = one != other
        if not apart.any():
            return piece
        np.minimum.at(piece, np.maximum(one, other)[apart], np.minimum(one, other)[apart])
        while (piece != piece[piece]).any():
            piece = piece[piece]


def background(runs: Int64, height: int, width: int) -> Int64:
    """The runs [N, 2] that are left of the picture's columns."""
    begins = np.arange(width) * height
    ends = np.sort(np.concatenate([runs[:, 0], begins + height]))
    rest = np.stack([np.sort(np.concatenate([begins, runs[:, 1]])), ends], axis=1)
    return rest[rest[:, 1] > rest[:, 0]]


def _areas(runs: Int64, piece: Int64) -> Int64:
    """The area of each run's piece [N]."""
    areas = np.zeros(len(runs), np.int64)
    np.add.at(areas, piece, runs[:, 1] - runs[:, 0])
    own: Int64 = areas[piece]
    return own


def _neighbours(runs: Int64, height: int) -> tuple[Int64, Int64]:
    """The pairs of runs in neighbouring columns that touch, each as the places of its two runs."""
    x = runs[:, 0] // height
    # With room between the columns, so that the end of one does not touch the beginning of the next.
    begins, ends = runs[:, 0] + 2 * x, runs[:, 1] + 2 * x
    low = np.searchsorted(ends, begins + height + 2)
    many = np.maximum(np.searchsorted(begins, ends + height + 2, side="right") - low, 0)
    first = np.repeat(np.arange(len(runs)), many)
    within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    return first, np.repeat(low, many) + within


def _joined(runs: Int64, height: int) -> Int64:
    """Runs in any order, rising, with those as one that touch inside their column."""
    if not len(runs):
        return runs
    runs = runs[np.argsort(runs[:, 0])]
    apart = (runs[1:, 0] != runs[:-1, 1]) | (runs[1:, 0] % height == 0)
    return np.stack([runs[np.append(True, apart), 0], runs[np.append(apart, True), 1]], axis=1)
