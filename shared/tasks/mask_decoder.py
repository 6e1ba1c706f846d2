"""SAM's mask decoder as exporters have written it: which input is what, how many prompts it takes at once, and the way
back to logits of low resolution.

    ours          points [B, N, 2], B and N free; low_res_masks [B, 4, 256, 256]
    original      SamOnnxModel of segment_anything/utils/onnx.py: B is 1, `orig_im_size` is what it enlarges to, beside
                  low_res_masks [1, 4 or 1, 256, 256]
    SAM 2         of samexporter: masks [B, 3, 256, 256]
    EfficientSAM  export_to_onnx.py of yformer/EfficientSAM: points [1, B, N, 2] in the pixels of `orig_im_size`, which
                  is also the size of output_masks [1, B, 3, h, w]

Of four masks the first is the one for a prompt that means one thing, the others are the thing, its part and its part's
part (segment_anything/modeling/mask_decoder.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import ConfigurationError, InvalidParameter, ModelOutputMismatch
from shared.tasks.prompts import BOTTOM_RIGHT, FILLING

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.call import Call
    from shared.geometry import HW
    from shared.manifest import Network
    from shared.tensors import Float32, Tensors, TensorSpec

_FIELD = "networks.decoder"
_PLANE_HW = (256, 256)  # where neither the mask input nor the output declares it
_MOST_MASKS = 4
_INPUTS = {
    "points": ("point_coords", "batched_point_coords", "input_points"),
    "labels": ("point_labels", "batched_point_labels", "input_labels"),
    "mask": ("mask_input",),
    "has_mask": ("has_mask_input",),
    "size": ("orig_im_size",),
}
_PLANES = ("low_res_masks", "masks", "output_masks", "pred_masks")
_IOU = ("iou_predictions", "iou_scores", "scores")
_OPTIONAL = ("mask", "has_mask", "size")


@dataclass(frozen=True, slots=True)
class Traits:
    """What the tensors of a decoder do not say. padding_point: its caller adds the point that says that there is no
    box; one_mask: where no prompt has an earlier mask, one that says so does for all; max_points: how many points of a
    prompt, a box's corners among them, are read."""

    padding_point: bool
    one_mask: bool
    max_points: int | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """For each of B prompts C masks: `planes` [B, C, h, w] float32 logits, `iou` [B, C] float32, the model's own
    estimate of how good they are. Of four the first is the single one."""

    planes: Float32
    iou: Float32

    def several(self) -> Decoded:
        """The masks of a prompt that may mean a thing or its part."""
        return self._chosen(slice(1, None)) if self.planes.shape[1] == _MOST_MASKS else self

    def single(self) -> Decoded:
        """One mask a prompt: the first of four, the best of three."""
        if self.planes.shape[1] in (1, _MOST_MASKS):
            return self._chosen(slice(0, 1))
        best = self.iou.argmax(axis=1)
        row = np.arange(len(best))
        return Decoded(self.planes[row, best][:, None], self.iou[row, best][:, None])

    def _chosen(self, which: slice) -> Decoded:
        return Decoded(self.planes[:, which], self.iou[:, which])


class MaskDecoder:
    """What a declared decoder takes and gives. Raises ConfigurationError that names what it lacks."""

    def __init__(self, network: Network, frame_hw: HW, traits: Traits) -> None:
        inputs = _by_role(network.inputs, _INPUTS, f"{_FIELD}.inputs", _OPTIONAL)
        self._inputs = inputs
        self.embeddings = {spec.name: spec for spec in network.inputs if spec not in inputs.values()}
        self._points, self._labels = inputs["points"], inputs["labels"]
        self._nested = len(self._points.shape) == 4
        _check_points(self._points, self._labels)
        # Where the graph enlarges, that is told by the frame of its points: only nested ones are in its pixels.
        planes = [name for name in _PLANES if name != "masks" or "size" not in inputs]
        outputs = _by_role(network.outputs, {"low_res_masks": planes, "iou_predictions": _IOU}, f"{_FIELD}.outputs")
        self._planes, self._iou = outputs["low_res_masks"], outputs["iou_predictions"]
        self.mask_hw = _sides(inputs["mask"]) if "mask" in inputs else None
        free = self._nested and "size" in inputs
        self.plane_hw = (None if free else _declared(self._planes)) or self.mask_hw or _PLANE_HW
        self._frame_hw = frame_hw
        self._padding_point = traits.padding_point and not self._nested
        self._one_mask = traits.one_mask
        batch, fixed_points = self._points.shape[-3], self._points.shape[-2]
        self._batch = batch
        self._fixed_points = fixed_points
        self._most_points = min((most for most in (fixed_points, traits.max_points) if most is not None), default=None)

    @property
    def plane_elements(self) -> int:
        """How many logits a prompt brings."""
        return _MOST_MASKS * prod(self.plane_hw)

    def elements(self, prompts: int, points: int) -> int:
        """How many numbers a run for so many prompts of so many points takes in."""
        prompts = self._batch or prompts
        mask = prompts * (prod(self.mask_hw) + 1) if self.mask_hw else 0
        embedding = sum(prod(side or 1 for side in spec.shape) for spec in self.embeddings.values())
        return embedding + mask + 3 * prompts * (self._fixed_points or points + 1)

    def check(self, points: int, *, boxes: bool) -> None:
        """Raises InvalidParameter where so many points of a prompt, corners included, are more than are taken."""
        most, padding = self._most_points, int(self._padding_point and not boxes)
        if most is not None and points + padding > most:
            raise InvalidParameter(
                f"points: this model takes at most {most - padding}"
                f"{', the two corners of a box among them' if boxes else ''}, found {points}",
                parameter="points",
                limit=most - padding,
                found=points,
            )

    def decode(
        self, embeddings: Tensors, points: Float32, labels: Float32, run: Run, call: Call, *, masks: Float32 | None
    ) -> Decoded:
        """`points` [B, N, 2] in the encoder's frame, `labels` [B, N], `masks` [B, h, w] or None. Raises
        ModelOutputMismatch and what the run raises."""
        points, labels = self._filled(points, labels)
        at_once = self._batch or (1 if masks is not None and self._inputs["mask"].shape[0] == 1 else len(points))
        parts = []
        for begin in range(0, len(points), at_once):
            part = slice(begin, begin + at_once)
            arrays = self._arrays(points[part], labels[part], None if masks is None else masks[part])
            with call.stage("infer"):
                outputs = run({**embeddings, **arrays}, call)
            parts.append(self._decoded(outputs, len(points[part])))
        if len(parts) == 1:
            return parts[0]
        return Decoded(np.concatenate([part.planes for part in parts]), np.concatenate([part.iou for part in parts]))

    def _filled(self, points: Float32, labels: Float32) -> tuple[Float32, Float32]:
        """With the point that says that there is no box, where the export leaves it to its caller, and as many more
        that say nothing as a fixed number of points asks for."""
        no_box = not (labels == BOTTOM_RIGHT).any()
        short = int(no_box and (self._padding_point or not labels.shape[1]))
        self.check(labels.shape[1], boxes=not no_box)
        if self._fixed_points is not None:
            short = self._fixed_points - labels.shape[1]
        if not short:
            return points, labels
        beside = (len(points), short)
        return (
            np.concatenate([points, np.zeros((*beside, 2), np.float32)], axis=1),
            np.concatenate([labels, np.full(beside, FILLING, np.float32)], axis=1),
        )

    def _arrays(self, points: Float32, labels: Float32, masks: Float32 | None) -> Tensors:
        """The prompts by input name, in the declared dtypes; a fixed batch is filled with the last one again."""
        inputs, prompts = self._inputs, self._batch or len(points)
        if prompts > len(points):
            points, labels = _repeated(points, prompts), _repeated(labels, prompts)
            masks = None if masks is None else _repeated(masks, prompts)
        if "size" in inputs and self._nested:
            height, width = (low / full for low, full in zip(self.plane_hw, self._frame_hw, strict=True))
            points = points * np.array([width, height], np.float32)
        lead = (1,) if self._nested else ()
        arrays = {
            self._points.name: points.reshape(*lead, *points.shape).astype(self._points.dtype, copy=False),
            self._labels.name: labels.reshape(*lead, *labels.shape).astype(self._labels.dtype, copy=False),
        }
        if "mask" in inputs and self.mask_hw:
            count = inputs["mask"].shape[0] or (1 if masks is None and self._one_mask else prompts)
            shape = (count, 1, *self.mask_hw)
            given = np.zeros(shape, np.float32) if masks is None else masks.reshape(shape)
            arrays[inputs["mask"].name] = given.astype(inputs["mask"].dtype, copy=False)
        if "has_mask" in inputs:
            count = inputs["has_mask"].shape[0] or (1 if masks is None and self._one_mask else prompts)
            arrays[inputs["has_mask"].name] = np.full(count, masks is not None, inputs["has_mask"].dtype)
        if "size" in inputs:  # small, so that the graph enlarges nothing
            arrays[inputs["size"].name] = np.array(self.plane_hw, inputs["size"].dtype)
        return arrays

    def _decoded(self, outputs: Tensors, prompts: int) -> Decoded:
        planes, iou = (np.asarray(outputs[spec.name]) for spec in (self._planes, self._iou))
        if self._nested and planes.ndim == 5 and iou.ndim == 3:
            planes, iou = planes[0], iou[0]
        height, width = self.plane_hw
        if planes.ndim != 4 or planes.shape[2:] != (height, width) or not prompts <= planes.shape[0]:
            raise _misfit(self._planes.name, f"[{prompts}, masks, {height}, {width}]", planes.shape)
        if iou.shape != planes.shape[:2]:
            raise _misfit(self._iou.name, str(list(planes.shape[:2])), iou.shape)
        return Decoded(planes[:prompts].astype(np.float32, copy=False), iou[:prompts].astype(np.float32, copy=False))


def _by_role(
    specs: Sequence[TensorSpec], roles: Mapping[str, Sequence[str]], field: str, optional: Sequence[str] = ()
) -> dict[str, TensorSpec]:
    """The declared tensors by the part that they play: by `role`, else by the first usual name of it that is there."""
    found = {}
    for role, names in roles.items():
        fitting = [spec for spec in specs if spec.role == role]
        fitting += [spec for name in names for spec in specs if spec.role is None and spec.name == name]
        if fitting:
            found[role] = fitting[0]
        elif role not in optional:
            raise ConfigurationError(
                f"{field}: expected one with role {role!r} (or named {', '.join(names)}), "
                f"found {[spec.name for spec in specs]}"
            )
    return found


def _check_points(points: TensorSpec, labels: TensorSpec) -> None:
    nested = len(points.shape) == 4
    if (
        len(points.shape) not in (3, 4)
        or points.shape[-1] not in (2, None)
        or (nested and points.shape[0] not in (1, None))
    ):
        raise ConfigurationError(
            f"{_FIELD}.inputs: {points.name!r}: expected shape [prompts, points, 2] or [1, prompts, points, 2], "
            f"found {list(points.shape)}"
        )
    if labels.shape != points.shape[:-1]:
        raise ConfigurationError(
            f"{_FIELD}.inputs: {labels.name!r}: expected shape {list(points.shape[:-1])}, found {list(labels.shape)}"
        )


def _sides(mask: TensorSpec) -> HW:
    if len(mask.shape) != 4:
        raise ConfigurationError(
            f"{_FIELD}.inputs: {mask.name!r}: expected shape [prompts, 1, height, width], found {list(mask.shape)}"
        )
    return _declared(mask) or _PLANE_HW


def _declared(spec: TensorSpec) -> HW | None:
    height, width = spec.shape[-2:]
    return None if height is None or width is None else (height, width)


def _repeated(array: Float32, count: int) -> Float32:
    return np.concatenate([array, np.repeat(array[-1:], count - len(array), axis=0)])


def _misfit(name: str, expected: str, found: Sequence[int]) -> ModelOutputMismatch:
    return ModelOutputMismatch(
        f"output {name!r}: SAM's decoder gives shape {expected}, found {list(found)}",
        output=name,
        expected=expected,
        found=list(found),
    )
