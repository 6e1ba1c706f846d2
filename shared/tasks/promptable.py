"""Promptable segmentation: a picture is encoded once, and each prompt about it is answered by the decoder alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

from shared import needs
from shared.errors import ConfigurationError
from shared.masks import enlargement, forms
from shared.parameters import Fraction, PromptableParameters
from shared.predictions import Prediction, Rle, Segment
from shared.tasks import Plan, prompts
from shared.tasks.arrays import packed
from shared.tasks.automatic import AutomaticMasks
from shared.tasks.detection import read_options
from shared.tasks.mask_decoder import Traits
from shared.tasks.placing import FIXED_SIZE
from shared.tasks.prompts import Prompts
from shared.tasks.segmenter import Encoded, Segmenter

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.call import Call
    from shared.images import Decoding, Image
    from shared.manifest import Bundle
    from shared.masks.enlargement import Enlargement
    from shared.tensors import Float32

    Runs: TypeAlias = Mapping[str, Run]

TASK = "promptable-segmentation"
_MOST_AT_ONCE = 16  # beyond that a prompt does not become cheaper, only the memory grows
_ONLY_AUTOMATIC = (
    "points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh", "box_nms_thresh",
    "crop_n_layers", "crop_nms_thresh", "crop_overlap_ratio", "crop_n_points_downscale_factor", "min_mask_region_area",
    "max_masks", "sort_by",
)  # fmt: skip


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`postprocess` of model.json: the defaults of a request, and what the decoder's tensors do not say.

    padding_point  whether the caller adds the point that says that there is no box (null: as the family knows it)
    max_points     how many points of a prompt, a box's corners among them, the decoder reads (null: as declared)
    """

    mask_threshold: float = 0.0
    points_per_side: Annotated[int, Meta(ge=1, le=128)] = 32
    points_per_batch: Annotated[int, Meta(ge=1, le=1024)] = 64
    pred_iou_thresh: Fraction = 0.88
    stability_score_thresh: Fraction = 0.95
    stability_score_offset: Annotated[float, Meta(ge=0, le=100)] = 1.0
    padding_point: bool | None = None
    max_points: Annotated[int, Meta(ge=1)] | None = None


class Prompting(Plan, frozen=True, kw_only=True):
    """A Plan for named prompts: how many of them go through the decoder at once, and the embedding that was sent."""

    prompts: Prompts
    at_once: int
    given: Encoded | None = None
    notes: tuple[str, ...] = ()


class PromptableTask:
    """A Task (see shared.tasks) for SAM and its kin. `traits` are what the family knows of its exports."""

    def __init__(self, bundle: Bundle, traits: Traits) -> None:
        options = read_options(bundle, Options)
        model = bundle.model
        if model.task != TASK:
            raise ConfigurationError(f"task: family {model.family!r} is for {TASK!r}, found {model.task!r}")
        pads = traits.padding_point if options.padding_point is None else options.padding_point
        self.segmenter = Segmenter(bundle, Traits(pads, traits.one_mask, options.max_points))
        self._automatic = AutomaticMasks(self.segmenter)
        self._options = options

    @property
    def defaults(self) -> PromptableParameters:
        options = self._options
        return PromptableParameters(
            mask_threshold=options.mask_threshold,
            points_per_side=options.points_per_side,
            points_per_batch=options.points_per_batch,
            pred_iou_thresh=options.pred_iou_thresh,
            stability_score_thresh=options.stability_score_thresh,
            stability_score_offset=options.stability_score_offset,
        )

    def plan(self, picture: Decoding, params: PromptableParameters, budget_bytes: int) -> Plan:
        source_hw = picture.header.upright_hw
        given = None if params.embedding is None else self.segmenter.sent(params.embedding, source_hw)
        asked = prompts.of(params, source_hw, self.segmenter.mask_hw)
        if asked is None:
            return self._automatic.plan(picture, params, budget_bytes, given)
        self.segmenter.check(asked.labels.shape[1], boxes=bool(params.boxes or params.box))
        return self._prompting(picture, params, asked, given, budget_bytes)

    def predict(
        self, picture: Decoding, plan: Any, params: PromptableParameters, runs: Runs, call: Call
    ) -> Prediction[Segment]:
        if isinstance(plan, Prompting):
            found = self._prompted(picture, plan, params, runs, call)
        else:
            found = self._automatic.predict(picture, plan, params, runs, call)
        notes = (*found.notes, *_unused(params))
        with call.stage("postprocess"):
            segments = tuple(_presented(found.predictions, params, call))
        return msgspec.structs.replace(found, predictions=segments, notes=notes)

    def _prompting(
        self,
        picture: Decoding,
        params: PromptableParameters,
        asked: Prompts,
        given: Encoded | None,
        budget_bytes: int,
    ) -> Prompting:
        segmenter, header = self.segmenter, picture.header
        pixels = given is None and not segmenter.holds(picture)
        decode_hw = segmenter.place(header.upright_hw).content_hw
        encoding = max(needs.decode_bytes(header, decode_hw), segmenter.encode_bytes()) if pixels else 0
        points = asked.labels.shape[1]
        at_once = min(len(asked), _MOST_AT_ONCE)
        placing = forms.bytes_needed(header.upright_hw, params.mask_format, in_bands=True)
        while at_once > 1 and segmenter.decode_bytes(at_once, points) + placing > budget_bytes:
            at_once //= 2
        decoding = segmenter.decode_bytes(at_once, points) + placing
        return Prompting(
            decode_hw=decode_hw,
            pixels=pixels,
            bytes_needed=max(encoding, decoding) + self._answer_bytes(params, len(asked)),
            prompts=asked,
            at_once=at_once,
            given=given,
            notes=self._idle(params),
        )

    def _answer_bytes(self, params: PromptableParameters, asked: int) -> int:
        """What logits and an embedding take in the answer, as numbers and then in base64."""
        numbers = asked * self.segmenter.plane_elements if params.return_logits else 0
        numbers += self.segmenter.embedding_elements if params.return_embedding else 0
        return 3 * numbers * (2 if params.logits_dtype == "float16" else 4)

    def _idle(self, params: PromptableParameters) -> tuple[str, ...]:
        defaults = self.defaults
        idle = [name for name in _ONLY_AUTOMATIC if getattr(params, name) != getattr(defaults, name)]
        return (f"{', '.join(idle)}: no effect together with a prompt",) if idle else ()

    def _prompted(
        self, picture: Decoding, plan: Prompting, params: PromptableParameters, runs: Runs, call: Call
    ) -> Prediction[Segment]:
        def pixels() -> Image:
            return picture.image(plan.decode_hw, call)

        encoded = plan.given or self.segmenter.encoded(picture, pixels, runs, call)
        way = self.segmenter.enlargement(encoded)
        segments: list[Segment] = []
        for begin in range(0, len(plan.prompts), plan.at_once):
            part = plan.prompts.part(begin, begin + plan.at_once)
            decoded = self.segmenter.decode(encoded, part.points_xy, part.labels, runs, call, masks=part.masks)
            chosen = decoded.several() if params.multimask else decoded.single()
            with call.stage("postprocess"):
                for place, (planes, scores) in enumerate(zip(chosen.planes, chosen.iou.tolist(), strict=True), begin):
                    for segment in _segments(planes, scores, way, params, place if params.boxes else None):
                        call.check()
                        segments.append(segment)
        kept = sorted((one for one in segments if one.area), key=lambda one: -one.score)
        empty = len(segments) - len(kept)
        notes = (*plan.notes, *((f"{empty} of {len(segments)} masks had no pixel and are left out",) if empty else ()))
        embedding = self.segmenter.embedding(encoded, params.logits_dtype) if params.return_embedding else None
        return Prediction(picture.header.upright_hw, tuple(kept), notes, embedding=embedding)


def _unused(params: PromptableParameters) -> tuple[str, ...]:
    """What to say of parameters that have no effect, with a prompt or without."""
    factor = () if params.render_factor == "auto" else (FIXED_SIZE,)
    no_numbers = params.logits_dtype != "float16" and not (params.return_logits or params.return_embedding)
    dtype = ("logits_dtype: no effect without return_logits or return_embedding",) if no_numbers else ()
    return (*factor, *dtype, *forms.idle(params.mask_format, params.polygon_tolerance))


def _segments(
    planes: Float32, scores: list[float], way: Enlargement, params: PromptableParameters, prompt: int | None
) -> Iterator[Segment]:
    """The masks of one prompt: planes [C, h, w] and a score each. One whose score is no number is left out as empty."""
    for plane, score in zip(planes, scores, strict=True):
        found = enlargement.mask(plane, way, params.mask_threshold)
        yield Segment(
            score=round(score, 6) if np.isfinite(score) else 0.0,
            mask=found.rle,
            area=found.area if np.isfinite(score) else 0,
            box=found.box,
            stability_score=round(_stability(plane, params.mask_threshold, params.stability_score_offset), 6),
            prompt=prompt,
            logits=packed(plane, params.logits_dtype) if params.return_logits else None,
        )


def _stability(plane: Float32, threshold: float, offset: float) -> float:
    """How little a mask changes when its threshold does, 0..1, told by the decoder's own plane [h, w], as
    segment_anything/utils/onnx.py does (`use_stability_score`); 0 where there is nothing to tell it by."""
    outer = int(np.count_nonzero(plane > threshold - offset))
    return int(np.count_nonzero(plane > threshold + offset)) / outer if outer else 0.0


def _presented(segments: Iterable[Segment], params: PromptableParameters, call: Call) -> Iterator[Segment]:
    """With their masks in the form that was asked for. Raises DeadlineExceeded between two of them, and OutOfMemory."""
    presented = forms.Presenter(params.mask_format, params.polygon_tolerance)
    for segment in segments:
        call.check()
        assert isinstance(segment.mask, Rle), "as masks are made"
        yield msgspec.structs.replace(segment, mask=presented(segment.mask))
