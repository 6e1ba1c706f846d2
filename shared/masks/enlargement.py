"""Planes of logits or probabilities in the model's frame -> masks in source pixels.

An `Enlargement` is made once a picture and serves all its masks. Its result is that of the reference named at each
constructor but for ties: values that float32 puts on the other side of the threshold because sums are taken in another
order, fewer than one pixel in 100,000.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from shared.masks import cells, rle, taps
from shared.masks.cells import Band
from shared.masks.placed import Crop, Measured, Placed
from shared.masks.taps import Grid

if TYPE_CHECKING:
    from shared.geometry import HW, Resize
    from shared.tensors import Float32


@dataclass(frozen=True, slots=True)
class Enlargement:
    """From a plane of `plane_hw` to a picture of `source_hw`, which is a `crop` of a larger one or has none."""

    plane_hw: HW
    source_hw: HW
    grid: Grid
    crop: Crop | None = None

    @property
    def picture_hw(self) -> HW:
        return self.source_hw if self.crop is None else self.crop.picture_hw

    @property
    def origin(self) -> tuple[int, int]:
        """(top, left) of the source in the picture."""
        return (0, 0) if self.crop is None else (self.crop.top, self.crop.left)


def stretched(plane_hw: HW, source_hw: HW, crop: Crop | None = None) -> Enlargement:
    """The whole plane becomes the whole source, as F.interpolate(plane, source_hw, mode="bilinear") does: sam2's
    SAM2Transforms.postprocess_masks, and planes of probabilities that need no more."""
    rows, columns = (
        taps.single(taps.bilinear(elements, pixels), 0, elements)
        for elements, pixels in zip(plane_hw, source_hw, strict=True)
    )
    return Enlargement(plane_hw, source_hw, Grid(rows, columns), crop)


def content(plane_hw: HW, resize: Resize, crop: Crop | None = None) -> Enlargement:
    """The plane covers the whole of `resize.model_hw`; its padding is cut off at whole elements, and the rest becomes
    the source: Ultralytics' process_mask_native (ultralytics/utils/ops.py, scale_masks; then F.interpolate)."""
    rows, columns = (
        taps.single(taps.bilinear(end - begin, pixels), begin, end)
        for (begin, end), pixels in zip(_content(plane_hw, resize), resize.source_hw, strict=True)
    )
    return Enlargement(plane_hw, resize.source_hw, Grid(rows, columns), crop)


def sam(low_hw: HW, resize: Resize, crop: Crop | None = None) -> Enlargement:
    """The low-resolution logits become `resize.model_hw`, the padding is cut off, the rest becomes the source:
    segment-anything's Sam.postprocess_masks (segment_anything/modeling/sam.py), both bilinear steps as one."""
    rows, columns = (
        taps.composed(*lengths)
        for lengths in zip(
            low_hw, resize.model_hw, (resize.top, resize.left), resize.content_hw, resize.source_hw, strict=True
        )
    )
    return Enlargement(low_hw, resize.source_hw, Grid(rows, columns), crop)


def placed(
    plane: Float32, enlargement: Enlargement, threshold: float = 0.0, box: Sequence[float] | None = None
) -> Placed:
    """The mask where `plane` [h, w] float32, enlarged, is above `threshold`. Of a `box` [x1, y1, x2, y2] in source
    pixels only the pixels (x, y) with x1 <= x < x2 and y1 <= y < y2 are kept (Ultralytics' crop_mask)."""
    found = list(_bands(plane, enlargement, threshold, box))
    if not found:
        return Placed(0, 0, np.zeros((0, 0), np.bool_), enlargement.picture_hw)
    bits = found[0].columns if len(found) == 1 else np.concatenate([band.columns for band in found])
    return Placed(found[0].top, found[0].left, bits.T, enlargement.picture_hw)


def mask(
    plane: Float32, enlargement: Enlargement, threshold: float = 0.0, box: Sequence[float] | None = None
) -> Measured:
    """What `placed` gives, as run lengths, made a few million pixels at a time."""
    height = enlargement.picture_hw[0]
    found = [
        rle.column_runs(band.columns, band.top, band.left, height)
        for band in _bands(plane, enlargement, threshold, box)
    ]
    return rle.measure(np.concatenate(found) if found else np.zeros((0, 2), np.int64), enlargement.picture_hw)


def counts(plane: Float32, enlargement: Enlargement, thresholds: Sequence[float]) -> tuple[int, ...]:
    """How many source pixels of `plane` [h, w] float32, enlarged, are above each threshold."""
    return cells.counts(_checked(plane, enlargement), enlargement.grid, thresholds)


def stability(plane: Float32, enlargement: Enlargement, threshold: float = 0.0, offset: float = 1.0) -> float:
    """The area above `threshold + offset` over that above `threshold - offset`, 0 where there is none of the latter
    (segment_anything/utils/amg.py, calculate_stability_score, which gives NaN there)."""
    inner, outer = counts(plane, enlargement, (threshold + offset, threshold - offset))
    return inner / outer if outer else 0.0


def _bands(plane: Float32, enlargement: Enlargement, threshold: float, box: Sequence[float] | None) -> Iterator[Band]:
    plane, (rows, columns) = _checked(plane, enlargement), enlargement.grid
    x1, y1, x2, y2 = _pixels(box, enlargement.source_hw)
    if x1 >= x2 or y1 >= y2:
        return
    if box is None:
        part = cells.reached(plane, enlargement.grid, threshold)
    else:
        part = Grid(rows.part(*rows.covering(y1, y2)), columns.part(*columns.covering(x1, x2)))
    down, right = enlargement.origin
    for top, left, bits in cells.bands(plane, part, threshold):
        low_x, low_y = max(x1 - left, 0), max(y1 - top, 0)
        kept = bits[low_x : max(x2 - left, 0), low_y : max(y2 - top, 0)]
        if kept.size:
            yield Band(top + low_y + down, left + low_x + right, kept)


def _pixels(box: Sequence[float] | None, source_hw: HW) -> tuple[int, int, int, int]:
    """The pixels that a box in source pixels holds: x1, y1, x2, y2, max exclusive, inside the picture."""
    height, width = source_hw
    if box is None:
        return 0, 0, width, height
    x1, x2 = (min(max(ceil(side), 0), width) for side in (box[0], box[2]))
    y1, y2 = (min(max(ceil(side), 0), height) for side in (box[1], box[3]))
    return x1, y1, x2, y2


def _checked(plane: Float32, enlargement: Enlargement) -> Float32:
    if plane.shape != enlargement.plane_hw:
        raise ValueError(f"expected a plane of shape {list(enlargement.plane_hw)}, found {list(plane.shape)}")
    return plane.astype(np.float32, copy=False)


def _content(plane_hw: HW, resize: Resize) -> list[tuple[int, int]]:
    """From which element to which one the picture lies in the plane, for both axes."""
    in_middle = resize.top > 0 or resize.left > 0
    scale = min(m / s for m, s in zip(resize.model_hw, resize.source_hw, strict=True))
    found = []
    for elements, model, inside, source in zip(
        plane_hw, resize.model_hw, resize.content_hw, resize.source_hw, strict=True
    ):
        # The reference counts with the picture's side as it is before it is rounded to pixels.
        side = source * scale if abs(source * scale - inside) <= 1 else inside
        spare = elements - side * elements / model
        before, behind = (round(spare / 2 - 0.1), round(spare / 2 + 0.1)) if in_middle else (0, round(spare + 0.1))
        found.append((before, max(before + 1, elements - behind)))
    return found
