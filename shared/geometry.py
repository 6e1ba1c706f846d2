"""Where source pixels land in the model's tensor and back; boxes and non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shared.tensors import Float32, Int64

HW = tuple[int, int]
_EPSILON = np.float32(1e-9)


@dataclass(frozen=True, slots=True)
class Resize:
    """One placement of a picture in a tensor, and its inverse.

    The whole upright picture (`source_hw`, pixels) is scaled to `content_hw` and put at (`top`, `left`) of a
    tensor of `model_hw`; what lies around it is padding. The two axes keep their own scale, so that rounding
    of `content_hw` does not move a box.
    """

    source_hw: HW
    content_hw: HW
    model_hw: HW
    top: int = 0
    left: int = 0

    def boxes_to_source(self, boxes_xyxy: Float32, *, clip: bool = True) -> Float32:
        """Boxes [N, 4] xyxy in tensor pixels -> source pixels, clipped to the picture unless told otherwise."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        height, width = self.source_hw
        limit = np.array([width, height] * 2, np.float32)
        boxes: Float32 = (boxes_xyxy - offset) / self._scale_xyxy()
        if clip:
            boxes = np.clip(boxes, 0, limit)
        return boxes.astype(np.float32, copy=False)

    def boxes_to_model(self, boxes_xyxy: Float32) -> Float32:
        """Boxes [N, 4] xyxy in source pixels -> tensor pixels."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        return (boxes_xyxy * self._scale_xyxy() + offset).astype(np.float32)

    def points_to_model(self, points_xy: Float32) -> Float32:
        """Points [..., 2] xy in source pixels -> tensor pixels."""
        offset = np.array([self.left, self.top], np.float32)
        return (points_xy * self._scale_xyxy()[:2] + offset).astype(np.float32)

    def _scale_xyxy(self) -> Float32:
        scale_y, scale_x = (c / s for c, s in zip(self.content_hw, self.source_hw, strict=True))
        return np.array([scale_x, scale_y] * 2, np.float32)


def stretch(source_hw: HW, content_hw: HW, multiple_of: int = 1) -> Resize:
    """Both sides to `content_hw`, the aspect ratio changes; then padded as in `long_side`."""
    return Resize(source_hw, content_hw, _padded(content_hw, multiple_of))


def letterbox(source_hw: HW, model_hw: HW, *, center: bool) -> Resize:
    """The largest copy with the same aspect ratio that fits `model_hw`, in its middle or at its top left."""
    scale = min(m / s for m, s in zip(model_hw, source_hw, strict=True))
    content_hw = _scaled(source_hw, scale, model_hw)
    spare_y, spare_x = (m - c for m, c in zip(model_hw, content_hw, strict=True))
    # The odd pixel goes right and bottom, as Ultralytics' LetterBox rounds it (ultralytics/data/augment.py).
    return Resize(source_hw, content_hw, model_hw, spare_y // 2 if center else 0, spare_x // 2 if center else 0)


def long_side(source_hw: HW, side: int, multiple_of: int = 1) -> Resize:
    """The long side becomes `side`; each side is then padded right and bottom to a multiple of `multiple_of`."""
    content_hw = _scaled(source_hw, side / max(source_hw))
    return Resize(source_hw, content_hw, _padded(content_hw, multiple_of))


def short_side(source_hw: HW, side: int, max_side: int | None, multiple_of: int = 1) -> Resize:
    """The short side becomes `side`, or less where the long one would pass `max_side`; padded as in `long_side`."""
    scale = side / min(source_hw)
    if max_side is not None:
        scale = min(scale, max_side / max(source_hw))
    content_hw = _scaled(source_hw, scale)
    return Resize(source_hw, content_hw, _padded(content_hw, multiple_of))


def cxcywh_to_xyxy(boxes_cxcywh: Float32) -> Float32:
    """Boxes [N, 4] as centre and size -> corners, in the same frame and unit."""
    center, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:] / 2
    return np.concatenate([center - half, center + half], axis=1)


def iou(box_xyxy: Float32, boxes_xyxy: Float32) -> Float32:
    """Intersection over union of one box [4] with boxes [N, 4] -> [N] in 0..1."""
    sides = np.minimum(box_xyxy[2:], boxes_xyxy[:, 2:]) - np.maximum(box_xyxy[:2], boxes_xyxy[:, :2])
    np.maximum(sides, 0, out=sides)
    intersection = sides[:, 0] * sides[:, 1]
    union = area(box_xyxy[None]) + area(boxes_xyxy) - intersection
    overlap: Float32 = intersection / np.maximum(union, _EPSILON)
    return overlap


def area(boxes_xyxy: Float32) -> Float32:
    """Areas [N] of boxes [N, 4], in the square of their unit; 0 for boxes turned inside out."""
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    areas: Float32 = sides[:, 0] * sides[:, 1]
    return areas


def by_score(scores: Float32, classes: Int64) -> Int64:
    """The order [N] of falling score; ties by class, then by place, so that it is the same on every machine."""
    return np.lexsort((np.arange(len(scores)), classes, -scores)).astype(np.int64)


def nms(boxes_xyxy: Float32, classes: Int64, iou_threshold: float, limit: int) -> Int64:
    """Greedy non-maximum suppression inside each class.

    boxes_xyxy [N, 4] and classes [N] come by falling score; a box is dropped when its IoU with a kept one of its
    class is above `iou_threshold`. Returns the places of the kept ones, at most `limit`, in the order given.
    """
    kept: list[int] = []
    rest = np.arange(len(boxes_xyxy))
    while len(rest) and len(kept) < limit:
        best, rest = rest[0], rest[1:]
        kept.append(int(best))
        overlaps = iou(boxes_xyxy[best], boxes_xyxy[rest]) > iou_threshold
        rest = rest[~(overlaps & (classes[rest] == classes[best]))]
    return np.array(kept, np.int64)


def _scaled(source_hw: HW, scale: float, limit_hw: HW | None = None) -> HW:
    height, width = (max(1, int(side * scale + 0.5)) for side in source_hw)
    return (height, width) if limit_hw is None else (min(height, limit_hw[0]), min(width, limit_hw[1]))


def _padded(content_hw: HW, multiple_of: int) -> HW:
    height, width = (-(-side // multiple_of) * multiple_of for side in content_hw)
    return height, width
