"""The small square masks of Mask R-CNN heads, each placed in its box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.masks import cells, taps
from shared.masks.placed import Placed
from shared.masks.taps import Grid, Linear

if TYPE_CHECKING:
    from shared.geometry import HW
    from shared.tensors import Float32

_HALF, _ONE = np.float32(0.5), np.float32(1)


def torchvision(
    probabilities: Float32, box_xyxy: Sequence[float] | Float32, source_hw: HW, threshold: float = 0.5
) -> Placed:
    """Probabilities [M, M] float32 0..1 of one box in source pixels -> where they are above `threshold`.

    paste_masks_in_image of torchvision/models/detection/roi_heads.py: a border of zeros, the box larger by as much and
    cut to whole numbers, then F.interpolate. Raises ValueError where the box is not finite.
    """
    size = probabilities.shape[-1]
    low, high = _corners(box_xyxy)
    half = (high - low) * _HALF * np.float32((size + 2) / size)
    centre = (high + low) * _HALF
    first, last = np.trunc(centre - half).astype(np.int64), np.trunc(centre + half).astype(np.int64)
    axes = []
    for begin, end, side in zip(first.tolist(), (last + 1).tolist(), source_hw[::-1], strict=True):
        inside = max(begin, 0), min(max(end, begin + 1), side)
        if inside[0] >= inside[1]:
            return _nothing(source_hw)
        linear = taps.bilinear(size + 2, max(end - begin, 1), inside[0] - begin, inside[1] - begin)
        axes.append(taps.single(linear, 0, size + 2, inside[0]))
    return _pasted(probabilities, Grid(axes[1], axes[0]), source_hw, np.float32(threshold))


def detectron2(
    probabilities: Float32, box_xyxy: Sequence[float] | Float32, source_hw: HW, threshold: float = 0.5
) -> Placed:
    """Probabilities [M, M] float32 0..1 of one box in source pixels -> where they are at least `threshold`.

    paste_masks_in_image of detectron2/layers/mask_ops.py: grid_sample at the middles of the pixels, with zeros around
    the mask. Raises ValueError where the box is not finite.
    """
    size = np.float32(probabilities.shape[-1])
    low, high = _corners(box_xyxy)
    if (high <= low).any():
        return _nothing(source_hw)
    axes = []
    for begin, end, side in zip(low, high, source_hw[::-1], strict=True):
        inside = max(int(np.floor(begin)) - 1, 0), min(int(np.ceil(end)) + 1, side)
        if inside[0] >= inside[1]:
            return _nothing(source_hw)
        middles = np.arange(*inside).astype(np.float32) + _HALF
        at = ((middles - begin) / (end - begin) * 2 - _ONE + _ONE) * size / 2 - _HALF
        at = np.clip(at + _ONE, 0, size + _ONE)  # in the bordered mask, beyond which all is zero
        before = np.minimum(np.floor(at), size)
        axes.append(taps.single(Linear(before.astype(np.int64), at - before), 0, int(size) + 2, inside[0]))
    below = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    return _pasted(probabilities, Grid(axes[1], axes[0]), source_hw, below)


def _corners(box_xyxy: Sequence[float] | Float32) -> tuple[Float32, Float32]:
    box = np.asarray(box_xyxy, np.float32)
    if not np.isfinite(box).all():
        raise ValueError(f"expected a box of four finite numbers, found {box.tolist()}")
    return box[:2], box[2:]


def _pasted(probabilities: Float32, grid: Grid, source_hw: HW, threshold: np.float32) -> Placed:
    bordered = np.pad(probabilities.astype(np.float32, copy=False), 1)
    found = list(cells.bands(bordered, grid, float(threshold)))
    if not found:
        return _nothing(source_hw)
    columns = found[0].columns if len(found) == 1 else np.concatenate([band.columns for band in found])
    return Placed(found[0].top, found[0].left, columns.T, source_hw)


def _nothing(source_hw: HW) -> Placed:
    return Placed(0, 0, np.zeros((0, 0), np.bool_), source_hw)
