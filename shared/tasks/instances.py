"""Instance segmentation: what its families share. A family says how each object that was found gets its mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from shared.errors import InvalidParameter
from shared.masks import forms
from shared.parameters import InstanceParameters
from shared.predictions import Instance, Prediction
from shared.tasks.detection import Decode, Finder, Found, Options

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.call import Call
    from shared.images import Decoding
    from shared.manifest import Bundle
    from shared.masks.placed import Measured
    from shared.predictions import Detection
    from shared.tasks.placing import Placed
    from shared.tensors import TensorSpec

TASK = "instance-segmentation"


class Masks(Protocol):
    """A family's own part: what was found -> each object's mask, in order, where its probability is above `threshold`
    (None: as the model has it). Pure."""

    def __call__(self, found: Found, threshold: float | None) -> Iterator[Measured]: ...


class InstanceTask:
    """A Task (see shared.tasks) for any network that gives masks with its boxes."""

    def __init__(
        self, bundle: Bundle, options: Options, roles: Mapping[str, TensorSpec], decode: Decode, masks: Masks
    ) -> None:
        self._finder = Finder(bundle, options, roles, decode, TASK)
        self._options = options
        self._masks = masks

    @property
    def defaults(self) -> InstanceParameters:
        options = self._options
        return InstanceParameters(options.score_threshold, options.iou_threshold, options.max_predictions)

    def plan(self, picture: Decoding, params: InstanceParameters, budget_bytes: int) -> Placed:
        check_probability(params.mask_threshold)
        plan = self._finder.plan(picture, params, budget_bytes)
        masking = forms.bytes_needed(picture.header.upright_hw, params.mask_format, in_bands=False)
        needed = max(plan.bytes_needed, masking)
        return msgspec.structs.replace(plan, bytes_needed=needed)

    def predict(
        self, picture: Decoding, plan: Placed, params: InstanceParameters, runs: Mapping[str, Run], call: Call
    ) -> Prediction[Instance]:
        found = self._finder.find(picture, plan, params, runs, call)
        with call.stage("postprocess"):
            masks = self._masks(found, params.mask_threshold)
            instances = tuple(with_masks(found.objects, masks, params, call))
        notes = (*found.notes, *forms.idle(params.mask_format, params.polygon_tolerance))
        return Prediction(picture.header.upright_hw, instances, notes, found.render_factor)


def with_masks(
    objects: Iterable[Detection], masks: Iterable[Measured], params: InstanceParameters, call: Call
) -> Iterator[Instance]:
    """The objects with their masks, in the form that was asked for. Raises DeadlineExceeded between two of them, and
    OutOfMemory."""
    presented = forms.Presenter(params.mask_format, params.polygon_tolerance)
    for found, mask in zip(objects, masks, strict=True):
        call.check()
        yield Instance(found.label, found.class_id, found.score, found.box, presented(mask.rle), mask.area)


def check_probability(mask_threshold: float | None) -> None:
    """Raises InvalidParameter for what no probability can be above, or all are."""
    if mask_threshold is not None and not 0 <= mask_threshold <= 1:
        raise InvalidParameter(
            f"mask_threshold: expected a probability from 0 to 1 for this model, found {mask_threshold:g}",
            parameter="mask_threshold",
        )
