"""Which of the masks that a grid of points has brought are worth keeping.

They are those that SamAutomaticMaskGenerator keeps (segment_anything/automatic_mask_generator.py, _process_batch and
_process_crop): masks of which the model thinks enough, that are stable, not cut by the edge of their part, and not
like a better one. Only the order of the work is another: whether a mask is stable, which costs most to find out, is
not asked of those that a better one puts aside. Masks without a pixel, which the reference keeps where its thresholds
are 0, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shared import geometry
from shared.masks import extent
from shared.masks.extent import Trimmed
from shared.masks.placed import Measured
from shared.predictions import Box
from shared.tasks import crops
from shared.tasks.crops import Part

if TYPE_CHECKING:
    from shared.call import Call
    from shared.masks.enlargement import Enlargement
    from shared.parameters import PromptableParameters
    from shared.tasks.mask_decoder import Decoded
    from shared.tensors import Float32


class Kept(NamedTuple):
    """A mask that is worth keeping, with the model's own estimate of its IoU, the point that asked for it in source
    pixels, and the part of the picture that it was seen in."""

    found: Measured
    iou: float
    stability: float
    point: tuple[float, float]
    part: Part


class _Candidate(NamedTuple):
    """A mask that may be worth keeping; `seen` are its logits, or the mask where it is known to be stable."""

    iou: float
    point: tuple[float, float]
    box: Box
    seen: Trimmed | Kept


class Sieve:
    """The masks of one `part` of a picture: takes them as they come, then says which to keep. About `most_bytes` of
    logits are held; where there would be more, all of them are asked at once whether they are stable, which takes
    longer and changes nothing."""

    def __init__(self, params: PromptableParameters, part: Part, way: Enlargement, most_bytes: int) -> None:
        self._params = params
        self._part = part
        self._way = way
        self._most_bytes = most_bytes
        self._candidates: list[_Candidate] = []
        self._held_bytes = 0

    def add(self, decoded: Decoded, points_xy: Float32, call: Call) -> None:
        """What the decoder says of points [B, 2] float32, in pixels from the part's top left."""
        worthy = np.isfinite(decoded.iou)
        if self._params.pred_iou_thresh > 0:
            worthy &= decoded.iou > self._params.pred_iou_thresh
        for row, column in np.argwhere(worthy).tolist():
            call.check()
            x, y = points_xy[row].tolist()
            point = (x + self._part.x1, y + self._part.y1)
            self._consider(decoded.planes[row, column], float(decoded.iou[row, column]), point)
            if self._held_bytes > self._most_bytes:
                self._ask_all(call)

    def kept(self, call: Call) -> list[Kept]:
        """The masks to keep, by falling estimate."""
        ranked = sorted(self._candidates, key=lambda one: -one.iou)
        found: dict[int, Kept] = {}

        def is_stable(place: int) -> bool:
            kept = self._stable(ranked[place])
            if kept is not None:
                found[place] = kept
            return kept is not None

        unlike([one.box for one in ranked], self._params.box_nms_thresh, call, is_stable)
        return list(found.values())

    def _consider(self, plane: Float32, iou: float, point: tuple[float, float]) -> None:
        params = self._params
        trimmed = extent.trimmed(plane, self._way, params.mask_threshold - params.stability_score_offset)
        box = trimmed and trimmed.box(params.mask_threshold)
        if trimmed is None or box is None or crops.is_cut(box, self._part, self._way.picture_hw):
            return
        self._candidates.append(_Candidate(iou, point, box, trimmed))
        self._held_bytes += trimmed.plane.nbytes

    def _ask_all(self, call: Call) -> None:
        stable = []
        for one in self._candidates:
            call.check()
            kept = self._stable(one)
            if kept is not None:
                stable.append(one._replace(seen=kept))
        self._candidates, self._held_bytes = stable, 0

    def _stable(self, one: _Candidate) -> Kept | None:
        """The mask, if it is stable enough."""
        if isinstance(one.seen, Kept):
            return one.seen
        params = self._params
        stability = one.seen.stability(params.mask_threshold, params.stability_score_offset)
        if params.stability_score_thresh > 0 and not stability >= params.stability_score_thresh:
            return None
        return Kept(one.seen.mask(params.mask_threshold), one.iou, float(stability), one.point, self._part)


def unlike(
    boxes: Sequence[Box], threshold: float, call: Call, wanted: Callable[[int], bool] = lambda _: True
) -> list[int]:
    """The places of the boxes, the most important first, that overlap no kept one before them by more than `threshold`,
    and are `wanted`, which is asked of no others. Raises DeadlineExceeded.

    As the reference does, a box's sides are told by its first and its last pixel (batched_mask_to_box), so that it is
    a pixel smaller than its mask, and overlaps are float32 numbers that a double is compared with (torchvision's nms).
    """
    sides = np.array(boxes, np.float32).reshape(-1, 4) - np.array([0, 0, 1, 1], np.float32)
    kept = np.empty_like(sides)
    places: list[int] = []
    for place, box in enumerate(sides):
        call.check()
        overlaps = geometry.iou(box, kept[: len(places)])
        if (overlaps.astype(np.float64) > threshold).any() or not wanted(place):
            continue
        kept[len(places)] = box
        places.append(place)
    return places
