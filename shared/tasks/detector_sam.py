"""Family `detector-sam`: two bundles put together. The boxes of `detector`, any detection model, prompt the decoder of
`segmenter`, any SAM; label, score and box of an instance are the detector's, its mask is the segmenter's.

    "bundles": {"detector": "coco-ssd-mobilenet-v2", "segmenter": "mobile-sam"}

The detector runs first; where it finds nothing the encoder does not run. Both are shown one decoded picture. `masks`
says whether a box gets the decoder's one mask, or the best of its three by its own estimate of their IoU. Defaults that
`postprocess` leaves out are the detector's own. `mask_threshold` is a logit, as of every SAM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isfinite, prod
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from shared import needs
from shared.errors import ConfigurationError, InvalidParameter
from shared.images import Decoding
from shared.masks import enlargement, forms
from shared.parameters import DetectionParameters, InstanceParameters
from shared.predictions import Instance, Prediction
from shared.tasks import Plan, build, detection, prompts
from shared.tasks.detection import Threshold, read_options
from shared.tasks.instances import TASK, with_masks
from shared.tasks.promptable import PromptableTask

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.call import Call
    from shared.geometry import HW
    from shared.manifest import Bundle
    from shared.masks.placed import Measured
    from shared.predictions import Detection
    from shared.tasks import Task
    from shared.tasks.segmenter import Encoded, Segmenter
    from shared.tensors import Float32

    Runs = Mapping[str, Run]

_DETECTOR, _SEGMENTER = "detector", "segmenter"
_MOST_AT_ONCE = 16  # beyond that a box does not become cheaper, only the memory grows


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`postprocess` of model.json; null: the detector's own default."""

    score_threshold: Threshold | None = None
    iou_threshold: Threshold | None = None
    max_predictions: Annotated[int, Meta(ge=1, le=1000)] | None = None
    mask_threshold: float = 0.0
    masks: Literal["single", "best-of-three"] = "single"


class Composed(Plan, frozen=True, kw_only=True):
    """A Plan for both: the detector's own, and how many boxes go through the decoder at once."""

    detecting: Plan
    at_once: int


class DetectorSamTask:
    """A Task (see shared.tasks)."""

    def __init__(self, bundle: Bundle) -> None:
        _check(bundle)
        self._options = read_options(bundle, Options)
        self._detector = _detector(bundle.parts[_DETECTOR])
        self._segmenter = _segmenter(bundle.parts[_SEGMENTER])

    @property
    def defaults(self) -> InstanceParameters:
        own, detectors = self._options, self._detector.defaults
        return InstanceParameters(
            detectors.score_threshold if own.score_threshold is None else own.score_threshold,
            detectors.iou_threshold if own.iou_threshold is None else own.iou_threshold,
            detectors.max_predictions if own.max_predictions is None else own.max_predictions,
        )

    def plan(self, picture: Decoding, params: InstanceParameters, budget_bytes: int) -> Composed:
        _check_threshold(params.mask_threshold)
        header, segmenter = picture.header, self._segmenter
        detecting = self._detector.plan(picture, params, budget_bytes)
        # The same where the embedding is there already, so that the detector answers the same.
        decode_hw = _larger(detecting.decode_hw, segmenter.place(header.upright_hw).content_hw)
        pixels = 3 * prod(decode_hw or header.upright_hw)
        masking = forms.bytes_needed(header.upright_hw, params.mask_format, in_bands=True)
        at_once = min(params.max_predictions, _MOST_AT_ONCE)
        while at_once > 1 and pixels + segmenter.decode_bytes(at_once, prompts.CORNERS) + masking > budget_bytes:
            at_once //= 2
        prompting = segmenter.decode_bytes(at_once, prompts.CORNERS) + masking
        encoding = (
            0 if segmenter.holds(picture, decoded_hw=decode_hw or header.upright_hw) else segmenter.encode_bytes()
        )
        running = max(detecting.bytes_needed, encoding, prompting)
        needed = max(needs.decode_bytes(header, decode_hw), pixels + running)
        return Composed(decode_hw, bytes_needed=needed, detecting=detecting, at_once=at_once)

    def predict(
        self, picture: Decoding, plan: Composed, params: InstanceParameters, runs: Runs, call: Call
    ) -> Prediction[Instance]:
        image = picture.image(plan.decode_hw, call)
        of_detector, of_segmenter = (_of_part(role, runs) for role in (_DETECTOR, _SEGMENTER))
        found: Prediction[Detection] = self._detector.predict(
            Decoding.of(image), plan.detecting, params, of_detector, call
        )
        instances: tuple[Instance, ...] = ()
        if found.predictions:
            decoded_hw = plan.decode_hw or picture.header.upright_hw
            encoded = self._segmenter.encoded(picture, lambda: image, of_segmenter, call, decoded_hw=decoded_hw)
            del image
            boxes = np.array([one.box for one in found.predictions], np.float32)
            planes = self._planes(boxes, encoded, plan.at_once, of_segmenter, call)
            masks = list(self._masks(planes, encoded, params.mask_threshold, call))
            with call.stage("postprocess"):
                instances = tuple(with_masks(found.predictions, masks, params, call))
        notes = (*found.notes, *forms.idle(params.mask_format, params.polygon_tolerance))
        return Prediction(picture.header.upright_hw, instances, notes, found.render_factor)

    def _planes(self, boxes_xyxy: Float32, encoded: Encoded, at_once: int, runs: Runs, call: Call) -> Iterator[Float32]:
        """The logits [h, w] of the mask of each box."""
        for begin in range(0, len(boxes_xyxy), at_once):
            points, labels = prompts.of_boxes(boxes_xyxy[begin : begin + at_once])
            decoded = self._segmenter.decode(encoded, points, labels, runs, call)
            best = decoded.several() if self._options.masks == "best-of-three" else decoded.single()
            for planes, scores in zip(best.planes, best.iou, strict=True):
                yield planes[scores.argmax()]

    def _masks(
        self, planes: Iterable[Float32], encoded: Encoded, threshold: float | None, call: Call
    ) -> Iterator[Measured]:
        way = self._segmenter.enlargement(encoded)
        above = self._options.mask_threshold if threshold is None else threshold
        for plane in planes:
            with call.stage("postprocess"):
                mask = enlargement.mask(plane, way, above)
            yield mask


def task(bundle: Bundle) -> DetectorSamTask:
    return DetectorSamTask(bundle)


def _check(bundle: Bundle) -> None:
    model = bundle.model
    if model.task != TASK:
        raise ConfigurationError(f"task: family {model.family!r} is for {TASK!r}, found {model.task!r}")
    if model.bundles.keys() != {_DETECTOR, _SEGMENTER}:
        raise ConfigurationError(f"bundles: expected {_DETECTOR!r} and {_SEGMENTER!r}, found {sorted(model.bundles)}")
    if model.labels:
        raise ConfigurationError("labels: the detector's bundle has them; leave them out here")


def _detector(part: Bundle) -> Task:
    if part.model.task != detection.TASK:
        raise ConfigurationError(
            f"bundles.{_DETECTOR}: expected a bundle for {detection.TASK!r}, "
            f"but {part.model.name!r} is for {part.model.task!r}"
        )
    task = build(part)
    if not isinstance(task.defaults, DetectionParameters):
        raise ConfigurationError(f"bundles.{_DETECTOR}: {part.model.name!r} has other parameters than a detector's")
    return task


def _segmenter(part: Bundle) -> Segmenter:
    task = build(part)
    if not isinstance(task, PromptableTask):
        raise ConfigurationError(
            f"bundles.{_SEGMENTER}: expected a SAM, but {part.model.name!r} is of family {part.model.family!r}"
        )
    return task.segmenter


def _check_threshold(mask_threshold: float | None) -> None:
    if mask_threshold is not None and not isfinite(mask_threshold):
        raise InvalidParameter(f"mask_threshold: expected a number, found {mask_threshold}", parameter="mask_threshold")


def _larger(one: HW | None, other: HW | None) -> HW | None:
    """Sides that are enough for both; None is the picture's own size."""
    if one is None or other is None:
        return None
    return max(one[0], other[0]), max(one[1], other[1])


def _of_part(role: str, runs: Runs) -> dict[str, Run]:
    """The networks of one part, by its own names for them."""
    return {name.removeprefix(f"{role}/"): run for name, run in runs.items() if name.startswith(f"{role}/")}
