"""Points, boxes and earlier masks of a request, in the form in which SAM's prompt encoder takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import InvalidParameter
from shared.tasks.arrays import unpacked

if TYPE_CHECKING:
    from shared.geometry import HW
    from shared.parameters import PromptableParameters
    from shared.predictions import Array
    from shared.tensors import Float32

BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT, FILLING = 0, 1, 2, 3, -1
"""A point's label (segment_anything/modeling/prompt_encoder.py and utils/onnx.py)."""
CORNERS = 2


@dataclass(frozen=True, slots=True)
class Prompts:
    """B objects that are asked for, each by N points: `points_xy` [B, N, 2] float32 in source pixels, `labels` [B, N]
    float32, and `masks` [B, h, w] float32, logits of an earlier answer, if any. N is 0 where a mask is all there is."""

    points_xy: Float32
    labels: Float32
    masks: Float32 | None = None

    def part(self, begin: int, end: int) -> Prompts:
        masks = None if self.masks is None else self.masks[begin:end]
        return Prompts(self.points_xy[begin:end], self.labels[begin:end], masks)

    def __len__(self) -> int:
        return len(self.points_xy)


def of(params: PromptableParameters, source_hw: HW, mask_hw: HW | None) -> Prompts | None:
    """What `params` ask for in a picture of `source_hw`; None where they name nothing, which asks for everything.
    `mask_hw` is the size of an earlier mask, None where the model takes none. Points stay as they are, boxes are
    clipped to the picture. Raises InvalidParameter."""
    boxes = _boxes(params, source_hw)
    points, labels = _points(params, source_hw)
    if params.mask_input is None and not len(boxes) and not len(points):
        return None
    if len(points) and len(boxes) > 1:
        raise _wrong("points", f"together they refine one box, and there are {len(boxes)}: ask for each box on its own")
    objects = max(1, len(boxes))
    points_xy = np.broadcast_to(points, (objects, *points.shape))
    beside = np.broadcast_to(labels, (objects, *labels.shape))
    if len(boxes):  # the corners come after the points, as prompt_encoder.py puts them
        corners, kinds = of_boxes(boxes)
        points_xy, beside = np.concatenate([points_xy, corners], axis=1), np.concatenate([beside, kinds], axis=1)
    masks = None if params.mask_input is None else _masks(params.mask_input, objects, mask_hw)
    return Prompts(points_xy, beside, masks)


def of_boxes(boxes_xyxy: Float32) -> tuple[Float32, Float32]:
    """Boxes [B, 4] -> their corners as points [B, 2, 2] and labels [B, 2]."""
    labels = np.array([TOP_LEFT, BOTTOM_RIGHT], np.float32)
    return boxes_xyxy.reshape(-1, CORNERS, 2), np.broadcast_to(labels, (len(boxes_xyxy), CORNERS))


def _points(params: PromptableParameters, source_hw: HW) -> tuple[Float32, Float32]:
    """Points [N, 2] and labels [N]."""
    points, labels = params.points, params.point_labels
    if labels and len(labels) != len(points):
        raise _wrong("point_labels", f"expected a label for each of {len(points)} points, found {len(labels)}")
    height, width = source_hw
    for x, y in points:
        if not (0 <= x <= width and 0 <= y <= height):
            raise _wrong("points", f"[{x:g}, {y:g}] lies outside the picture, which is {width} wide and {height} high")
    found = np.array(points, np.float32).reshape(-1, 2)
    return found, np.array(labels or [FOREGROUND] * len(points), np.float32)


def _boxes(params: PromptableParameters, source_hw: HW) -> Float32:
    """Boxes [B, 4], inside the picture."""
    if params.box is not None and params.boxes:
        raise _wrong("boxes", "expected either box or boxes, found both")
    field, boxes = ("boxes", params.boxes) if params.box is None else ("box", (params.box,))
    return np.array([_clipped(box, source_hw, field) for box in boxes], np.float32).reshape(-1, 4)


def _clipped(box: Sequence[float], source_hw: HW, field: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    told = "[" + ", ".join(f"{side:g}" for side in box) + "]"
    if x2 <= x1 or y2 <= y1:
        raise _wrong(field, f"expected [x1, y1, x2, y2] with x1 < x2 and y1 < y2, found {told}")
    height, width = source_hw
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        raise _wrong(field, f"{told} lies outside the picture, which is {width} wide and {height} high")
    return inside


def _masks(array: Array, objects: int, mask_hw: HW | None) -> Float32:
    """Earlier masks [B, h, w], one for each object."""
    if mask_hw is None:
        raise _wrong("mask_input", "this model takes no earlier mask")
    wanted = [(objects, *mask_hw)] + ([mask_hw] if objects == 1 else [])
    if array.shape not in wanted:
        told = " or ".join(str(list(shape)) for shape in reversed(wanted))
        raise _wrong("mask_input", f"expected shape {told}, found {list(array.shape)}")
    return unpacked(array, "mask_input").reshape(objects, *mask_hw)


def _wrong(field: str, why: str) -> InvalidParameter:
    return InvalidParameter(f"{field}: {why}", parameter=field)
