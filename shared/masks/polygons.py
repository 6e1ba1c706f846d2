"""The outlines of a mask: rings along the edges of its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shared.masks.placed import Placed
from shared.masks.simplified import needed
from shared.predictions import Polygon, Ring

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.tensors import Int64

    Bits = npt.NDArray[np.bool_]


def polygons(placed: Placed, tolerance: float = 0.0) -> tuple[Polygon, ...]:
    """One polygon for each piece of the mask whose pixels hang together by their sides, from top to bottom.

    A polygon is its outer ring and then its holes; a ring is [x, y] of its corners in source pixels, the first one not
    repeated, clockwise on the screen for outer rings and the other way for holes. At a `tolerance` of 0 filling them
    (even-odd or non-zero) gives the mask exactly. Above it corners are left out (Douglas and Peucker 1973) as long as
    none of them is farther from its ring than that many pixels; an outer ring that would vanish keeps its corners, a
    hole that would is filled.
    """
    corners = _corners(placed.bits)
    rings = _rings(corners)
    if not rings:
        return ()
    ends = np.cumsum([len(ring) for ring in rings])
    order = np.concatenate([np.array(ring, np.int64) for ring in rings])
    points = np.stack([corners.x + placed.left, corners.y + placed.top], axis=1)[order]
    begins = np.array([0, *ends[:-1]])
    stays = needed(points, begins, tolerance) if tolerance > 0 else np.ones(len(points), np.bool_)
    found: dict[int, list[Ring]] = {}
    for number, owner in enumerate(_owners(order, begins, corners, placed.bits)):
        whole = points[begins[number] : ends[number]]
        kept = whole[stays[begins[number] : ends[number]]]
        if owner == number:
            found[owner] = [_ring(kept if len(kept) > 2 else whole)]
        elif len(kept) > 2:
            found[owner].append(_ring(kept[::-1]))
    return tuple(tuple(polygon) for polygon in found.values())


class _Corners(NamedTuple):
    """The N places where an outline turns, row by row: two after each other are the ends of one horizontal edge.

    `x`, `y` [N] count pixels from the crop's own corner. Two outlines that touch at a corner have one place there each.
    `down` [N] are the places column by column: two after each other are the ends of one vertical edge, and so `beyond`
    [N] is the other end for each place.
    """

    x: Int64
    y: Int64
    down: Int64
    beyond: Int64


def _corners(bits: Bits) -> _Corners:
    padded = np.pad(bits, 1)
    above_left, above_right, below_left, below_right = (
        padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:],
    )  # fmt: skip
    left_edge, right_edge = above_left ^ below_left, above_right ^ below_right
    turns = np.flatnonzero(left_edge ^ right_edge)
    crossings = np.flatnonzero(left_edge & right_edge & (above_left ^ above_right))
    places = np.sort(np.concatenate([turns, crossings, crossings]))
    y, x = np.divmod(places, padded.shape[1] - 1)
    # Each outline keeps to its own pixel where two cross: the edge from the left goes on to the side on which it lies.
    is_second = np.concatenate([[False], places[1:] == places[:-1]])[: len(places)]
    down = np.argsort(((x * padded.shape[0] + y) << 1) + (is_second ^ ~above_left[y, x]), kind="stable")
    beyond = np.empty_like(down)
    beyond[down[::2]], beyond[down[1::2]] = down[1::2], down[::2]
    return _Corners(x, y, down, beyond)


def _rings(corners: _Corners) -> list[list[int]]:
    """The places of each outline in turn, from the left end of its topmost edge to the right."""
    beyond, seen = corners.beyond.tolist(), bytearray(len(corners.x))
    rings = []
    for start in range(0, len(seen), 2):
        if seen[start]:
            continue
        ring: list[int] = []
        place = start
        while not seen[place]:
            ahead = place ^ 1
            seen[place] = seen[ahead] = 1
            ring += (place, ahead)
            place = beyond[ahead]
        rings.append(ring)
    return rings


def _owners(order: Int64, begins: Int64, corners: _Corners, bits: Bits) -> list[int]:
    """For each ring, whose corners lie in `order` [N] from `begins` [R] on, the number of the outer ring of its piece:
    its own, or that of the piece which its hole is in."""
    x, y = corners.x[order[begins]], corners.y[order[begins]]
    is_hole = ~bits[np.minimum(y, len(bits) - 1), x]
    owners = list(range(len(begins)))
    if is_hole.any():
        number = np.empty(len(order), np.int64)
        number[order] = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(order)))
        # The run of pixels above a hole's topmost edge begins at an outline of the same piece, which starts higher.
        beside = number[_edges_at_left(x[is_hole], y[is_hole] - 1, corners, bits)]
        for hole, ring in zip(np.flatnonzero(is_hole).tolist(), beside.tolist(), strict=True):
            owners[hole] = owners[ring]
    return owners


def _edges_at_left(x: Int64, y: Int64, corners: _Corners, bits: Bits) -> Int64:
    """For pixels of the mask, the upper end of the vertical edge at which the run of pixels in their row begins."""
    height, width = bits.shape
    rising = np.flatnonzero(bits & ~np.pad(bits, ((0, 0), (1, 0)))[:, :-1])
    begin_x = rising[np.searchsorted(rising, y * width + x, side="right") - 1] % width
    upper = corners.down[::2]
    edges = corners.x[upper] * (height + 1) + corners.y[upper]
    found: Int64 = upper[np.searchsorted(edges, begin_x * (height + 1) + y, side="right") - 1]
    return found


def _ring(points: npt.NDArray[np.int64]) -> Ring:
    return tuple(map(tuple, points.tolist()))
