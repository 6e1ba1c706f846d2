"""Which parts of a picture are looked at for automatic masks, and at which points.

The first part is the whole picture; layer n adds (2^n)^2 parts of it that overlap, looked at closer.
Source: segment_anything/utils/amg.py (build_all_layer_point_grids, generate_crop_boxes, is_box_near_crop_edge) of
facebookresearch/segment-anything.
"""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shared.errors import InvalidParameter

if TYPE_CHECKING:
    from shared.geometry import HW
    from shared.parameters import PromptableParameters
    from shared.tensors import Float32

_NEAR_PX = 20


class Part(NamedTuple):
    """A part of the picture, [x1, y1, x2, y2] in source pixels, max exclusive, with a square grid of points."""

    x1: int
    y1: int
    x2: int
    y2: int
    points_per_side: int

    @property
    def hw(self) -> HW:
        return self.y2 - self.y1, self.x2 - self.x1

    @property
    def area(self) -> int:
        return (self.y2 - self.y1) * (self.x2 - self.x1)

    @property
    def points(self) -> int:
        return self.points_per_side**2


def parts(source_hw: HW, params: PromptableParameters) -> tuple[Part, ...]:
    """Every part of a picture of `source_hw`, the whole first. Of a picture of few pixels those of a deep layer that
    would hold none are left out. Raises InvalidParameter where a layer would have no points."""
    height, width = source_hw
    found = [Part(0, 0, width, height, params.points_per_side)]
    for layer in range(1, params.crop_n_layers + 1):
        per_side = params.points_per_side // params.crop_n_points_downscale_factor**layer
        if per_side < 1:
            raise InvalidParameter(
                f"crop_n_points_downscale_factor: {params.crop_n_points_downscale_factor} leaves no point in layer "
                f"{layer} of crop_n_layers with points_per_side {params.points_per_side}",
                parameter="crop_n_points_downscale_factor",
            )
        found += [Part(*box, per_side) for box in _boxes(source_hw, 2**layer, params.crop_overlap_ratio)]
    return tuple(found)


def grid(part: Part) -> Float32:
    """The points [N, 2] float32 (x, y) of a part, from its top left, row by row."""
    side, offset = part.points_per_side, 1 / (2 * part.points_per_side)
    places = np.linspace(offset, 1 - offset, side)
    height, width = part.hw
    points = np.stack([np.tile(places * width, side), np.repeat(places * height, side)], axis=1)
    return points.astype(np.float32)


def is_cut(box_xyxy: tuple[float, float, float, float], part: Part, source_hw: HW) -> bool:
    """Whether a mask with this box, in source pixels, max exclusive, comes within 20 pixels of an edge of its part that
    is none of the picture's: more of the thing is to be seen in another part. Its last pixels count."""
    height, width = source_hw
    last = (box_xyxy[0], box_xyxy[1], box_xyxy[2] - 1, box_xyxy[3] - 1)
    return any(
        abs(side - edge) <= _NEAR_PX < abs(side - limit)
        for side, edge, limit in zip(last, part[:4], (0, 0, width, height), strict=True)
    )


def _boxes(source_hw: HW, count: int, overlap_ratio: float) -> list[tuple[int, int, int, int]]:
    """`count` x `count` overlapping boxes, column by column; the overlap is told in the short side of two by two."""
    height, width = source_hw
    overlap = int(overlap_ratio * min(source_hw) * (2 / count))
    tall, wide = (ceil((overlap * (count - 1) + side) / count) for side in source_hw)
    begins = product((i * (wide - overlap) for i in range(count)), (i * (tall - overlap) for i in range(count)))
    boxes = [(x, y, min(x + wide, width), min(y + tall, height)) for x, y in begins]
    return [box for box in boxes if box[0] < box[2] and box[1] < box[3]]
