"""Which elements of a plane, with which weights, make a source pixel: one axis at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from shared.tensors import Float32, Int64


class Linear(NamedTuple):
    """For each of N pixels the place of the element before it, int [N], and how far on the way to the next one it
    lies, float32 [N] 0..1."""

    first: Int64
    share: Float32


def bilinear(elements: int, pixels: int, begin: int = 0, end: int | None = None) -> Linear:
    """What F.interpolate(mode="bilinear", align_corners=False) takes for the pixels from `begin` to `end` when
    `elements` become `pixels`, counted in float32 as PyTorch counts (aten/src/ATen/native/UpSample.h,
    area_pixel_compute_source_index)."""
    place = np.arange(begin, pixels if end is None else end)
    if elements == pixels:
        return Linear(place, np.zeros(len(place), np.float32))
    half = np.float32(0.5)
    scale = np.float32(elements) / np.float32(pixels)
    exact = np.maximum(scale * (place.astype(np.float32) + half) - half, np.float32(0))
    first = np.minimum(exact.astype(np.int64), elements - 1)
    return Linear(first, exact - first.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a picture in C cells: neighbouring pixels that are made of the same K elements of the plane.

    `taps` [K, C] are the places of those elements, `starts` [C + 1] where in the picture each cell begins, `pixels`
    [S, C] the places of its pixels and `weights` [K, S, C] float32 theirs; where a cell has less than S pixels, its
    last one is repeated.
    """

    taps: Int64
    starts: Int64
    pixels: Int64
    weights: Float32

    @property
    def sizes(self) -> Int64:
        """The pixels of each cell [C]."""
        return self.starts[1:] - self.starts[:-1]

    def part(self, begin: int, end: int) -> Axis:
        """The cells from `begin` to `end`."""
        cells = slice(begin, end)
        starts = self.starts[begin : end + 1]
        return Axis(self.taps[:, cells], starts, self.pixels[:, cells], self.weights[:, :, cells])

    def covering(self, begin: int, end: int) -> tuple[int, int]:
        """The cells, from the first to behind the last, that hold the pixels from `begin` to `end`."""
        first, last = np.searchsorted(self.starts, [begin, end - 1], side="right") - 1
        return int(first), int(last) + 1


class Grid(NamedTuple):
    """The cells of a picture: those of its rows, and those of its columns."""

    rows: Axis
    columns: Axis


def axis(first: Int64, weights: Float32, last: int, begin: int = 0) -> Axis:
    """For the pixels from `begin` on, each made of the K elements from `first` [N] on with `weights` [K, N]. An element
    behind `last` stands for `last` itself."""
    begins = np.flatnonzero(np.diff(first, prepend=-1))
    # The picture's outermost pixels, which lie beyond the middle of an element, would make the largest cells.
    size = -(-len(first) // len(begins))
    within = np.arange(len(first)) - np.repeat(begins, np.diff(begins, append=len(first)))
    starts = np.append(np.flatnonzero(within % size == 0), len(first))
    places = np.minimum(starts[:-1] + np.arange(size)[:, None], starts[1:] - 1)
    taps = np.minimum(first[starts[:-1]] + np.arange(len(weights))[:, None], last)
    return Axis(taps, starts + begin, places + begin, weights[:, places])


def single(linear: Linear, begin_element: int, end_element: int, begin: int = 0) -> Axis:
    """For one linear map of the elements from `begin_element` to `end_element` of a plane."""
    weights = np.stack([1 - linear.share, linear.share])
    return axis(linear.first + begin_element, weights, end_element - 1, begin)


def composed(elements: int, between: int, top: int, content: int, pixels: int) -> Axis:
    """For two linear maps: `elements` become `between` ones, and `content` of those, from `top` on, become `pixels`."""
    inner, outer = bilinear(elements, between), bilinear(content, pixels)
    near, far = outer.first + top, np.minimum(outer.first + 1, content - 1) + top
    first = inner.first[near]
    step = inner.first[far] - first
    weights = np.zeros((int(step.max()) + 2, pixels), np.float32)
    row = np.arange(pixels)
    weights[0] = (1 - outer.share) * (1 - inner.share[near])
    weights[1] = (1 - outer.share) * inner.share[near]
    weights[step, row] += outer.share * (1 - inner.share[far])
    weights[step + 1, row] += outer.share * inner.share[far]
    return axis(first, weights, elements - 1)
