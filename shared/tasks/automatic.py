"""Everything in a picture: masks for a grid of points, as SamAutomaticMaskGenerator of segment-anything makes them
(segment_anything/automatic_mask_generator.py), within the memory and the time that there are.

The points go through the decoder some at a time, and of what it says of them only what may be worth keeping is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from shared import needs
from shared.errors import InvalidParameter
from shared.masks import forms
from shared.masks.regions import without_small_regions
from shared.parameters import PromptableParameters
from shared.predictions import Prediction, Segment
from shared.tasks import crops
from shared.tasks.crops import Part
from shared.tasks.looking import Look, Looking, crop_of
from shared.tasks.segmenter import Encoded, Segmenter
from shared.tasks.sieve import Kept, unlike

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.call import Call
    from shared.images import Decoding

_MOST_LOGITS_BYTES = 64 << 20  # about 2000 masks of a photo
_RLE_BYTES = 16 << 20  # all that are kept
_PIXEL_BYTES = 3
_ONLY_CROPS = ("crop_nms_thresh", "crop_overlap_ratio", "crop_n_points_downscale_factor")


class AutomaticMasks:
    """The part of a promptable Task (see shared.tasks) that answers requests without a prompt."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def plan(
        self, picture: Decoding, params: PromptableParameters, budget_bytes: int, given: Encoded | None = None
    ) -> Looking:
        """As many points at once as were asked for, or as the budget bears. Raises InvalidParameter where parameters do
        not go together."""
        segmenter, header = self._segmenter, picture.header
        parts = crops.parts(header.upright_hw, params)
        if given is not None and len(parts) > 1:
            raise InvalidParameter(
                "crop_n_layers: an embedding is of the whole picture; a closer look needs the picture in its place",
                parameter="crop_n_layers",
            )
        # A closer look is taken at the pixels of the source.
        decode_hw = None if len(parts) > 1 else segmenter.place(header.upright_hw).content_hw
        pixels = given is None and not all(
            segmenter.holds(picture, *crop_of(part, header.upright_hw), decode_hw or header.upright_hw)
            for part in parts
        )
        kept_bytes = _PIXEL_BYTES * prod(header.upright_hw) if pixels and len(parts) > 1 else 0
        encoding = max(needs.decode_bytes(header, decode_hw), kept_bytes + segmenter.encode_bytes()) if pixels else 0
        logits_bytes = min(_MOST_LOGITS_BYTES, budget_bytes // 8)
        placing = forms.bytes_needed(header.upright_hw, params.mask_format, in_bands=True)
        beside = kept_bytes + logits_bytes + _RLE_BYTES + placing
        at_once = self._at_once(_wanted_at_once(params), budget_bytes - beside)
        return Looking(
            decode_hw=decode_hw,
            pixels=pixels,
            bytes_needed=max(encoding, beside + segmenter.decode_bytes(at_once, 1)),
            parts=parts,
            points_per_batch=at_once,
            logits_bytes=logits_bytes,
            given=given,
            notes=_notes(params, at_once),
        )

    def predict(
        self,
        picture: Decoding,
        plan: Looking,
        params: PromptableParameters,
        runs: Mapping[str, Run],
        call: Call,
    ) -> Prediction[Segment]:
        """The masks that are worth keeping, by falling estimate of their IoU or by area. Raises DeadlineExceeded as
        soon as it is plain that they will not be found in time, with what would be, and what the networks raise."""
        look = Look(self._segmenter, picture, plan, params, runs, call)
        kept = look.kept()
        with call.stage("postprocess"):
            kept = _tidied(_without_twins(kept, plan.parts, params, call), params, call)
            kept.sort(key=lambda one: -(one.found.area if params.sort_by == "area" else one.iou))
        segments = tuple(_segment(one) for one in kept[: params.max_masks])
        cut = f"max_masks: of {len(kept)} masks the first {params.max_masks} by {params.sort_by} are given"
        notes = (*plan.notes, *look.notes, *((cut,) if len(segments) < len(kept) else ()))
        return Prediction(picture.header.upright_hw, segments, notes, embedding=look.embedding)

    def _at_once(self, most: int, budget_bytes: int) -> int:
        """The most points, by halves, that go through the decoder in `budget_bytes`; one at least."""
        while most > 1 and self._segmenter.decode_bytes(most, 1) > budget_bytes:
            most //= 2
        return most


def _wanted_at_once(params: PromptableParameters) -> int:
    return min(params.points_per_batch, params.points_per_side**2)


def _notes(params: PromptableParameters, at_once: int) -> tuple[str, ...]:
    wanted = _wanted_at_once(params)
    short = f"memory is short: the points are looked at {at_once} at a time, not {wanted}"
    logits = "return_logits: no effect on automatic masks"
    usual = PromptableParameters()
    idle = [name for name in _ONLY_CROPS if getattr(params, name) != getattr(usual, name)]
    closer = f"{', '.join(idle)}: no effect without crop_n_layers"
    return (
        *((short,) if at_once < wanted else ()),
        *((logits,) if params.return_logits else ()),
        *((closer,) if idle and not params.crop_n_layers else ()),
    )


def _without_twins(kept: Sequence[Kept], parts: Sequence[Part], params: PromptableParameters, call: Call) -> list[Kept]:
    """Of masks of several parts those that overlap none of a smaller part. Raises DeadlineExceeded."""
    if len(parts) == 1:
        return list(kept)
    ranked = sorted(kept, key=lambda one: one.part.area)
    boxes = [one.found.box for one in ranked]
    return [ranked[place] for place in unlike(boxes, params.crop_nms_thresh, call)]


def _tidied(kept: list[Kept], params: PromptableParameters, call: Call) -> list[Kept]:
    """Without holes and islands of few pixels; of masks that have become alike those are preferred that had none
    (postprocess_small_regions of the reference)."""
    if not params.min_mask_region_area:
        return kept
    tidied: list[tuple[bool, Kept]] = []
    for one in kept:
        call.check()
        found, changed = without_small_regions(one.found.rle, params.min_mask_region_area)
        tidied.append((changed, one._replace(found=found) if changed else one))
    ranked = [one for _, one in sorted(tidied, key=lambda each: each[0])]
    threshold = max(params.box_nms_thresh, params.crop_nms_thresh)
    return [ranked[place] for place in unlike([one.found.box for one in ranked], threshold, call)]


def _segment(one: Kept) -> Segment:
    x, y = one.point
    return Segment(
        score=round(one.iou, 6),
        mask=one.found.rle,
        area=one.found.area,
        box=one.found.box,
        stability_score=round(one.stability, 6),
        predicted_iou=round(one.iou, 6),
        point=(round(x, 3), round(y, 3)),
        crop_box=(float(one.part.x1), float(one.part.y1), float(one.part.x2), float(one.part.y2)),
    )
