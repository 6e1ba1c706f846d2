"""Family `mask-rcnn`: boxes [N, 4] (corners in tensor pixels), labels [N], scores [N] and masks; N may be 0.

    masks [N, 1, M, M], [N, M, M]   probabilities in the box of each: what the mask head gives
    masks [N, C, M, M]              the same for every class, of which each object's own is taken (Caffe2)
    masks [N, 1, H, W], [N, H, W]   probabilities over the whole tensor, where the graph has pasted them already

A leading batch axis of 1 is taken too. `paste` says by which rule the small ones are placed: as torchvision does, or as
detectron2, which is usual where an output is called `pred_masks` or `mask_fcn_probs`. Pasted ones are enlarged to the
source bilinearly. Overlapping boxes have been suppressed in the graph.

torchvision  the first label is the background, so `labels` of model.json begins with null and class ids are the
             network's own. The network normalises inside and usually resizes: RGB with `scale` 1/255 of any size,
             `"preprocess": {"layout": "CHW", "scale": 0.00392156862745098}`.
detectron2   classes count from 0. The exported network normalises inside, but takes BGR 0..255 that has been resized:
             `"preprocess": {"layout": "CHW", "colour": "BGR", "resize": "short-side", "side": 800, "max_side": 1333}`.

Source: torchvision/models/detection/roi_heads.py and transform.py of pytorch/vision; modeling/postprocessing.py,
modeling/roi_heads/mask_head.py and export/caffe2_modeling.py of facebookresearch/detectron2.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.masks import enlargement, rle, roi
from shared.tasks import torchvision_detection
from shared.tasks.detection import (
    Candidates,
    Found,
    Misfit,
    Options,
    Threshold,
    outputs_by_role,
    read_options,
)
from shared.tasks.instances import InstanceTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from shared.geometry import HW, Resize
    from shared.manifest import Bundle
    from shared.masks.placed import Measured, Placed
    from shared.tensors import Float32, Tensors, TensorSpec

    Place = Callable[[Float32, Float32, float], Measured]
    Paste = Callable[[Float32, Float32, HW, float], Placed]

Rule = Literal["torchvision", "detectron2"]

_ROLES = {
    "boxes": ("boxes", "pred_boxes", "bbox_nms"),
    "labels": ("labels", "pred_classes", "class_nms"),
    "scores": ("scores", "score_nms"),
    "masks": ("masks", "pred_masks", "mask_fcn_probs"),
}
_RULES: Mapping[Rule, Paste] = {"torchvision": roi.torchvision, "detectron2": roi.detectron2}
_DETECTRON2 = ("pred_masks", "mask_fcn_probs")
# How far a pasted mask may leave its box: torchvision's border is 1/28 of a side, and a pixel for rounding.
_MARGIN, _MARGIN_PX = 1 / 8, 2


class MaskRcnnOptions(Options, frozen=True, kw_only=True):
    mask_threshold: Threshold = 0.5
    paste: Rule | None = None


def task(bundle: Bundle) -> InstanceTask:
    options = read_options(bundle, MaskRcnnOptions)
    roles = outputs_by_role(bundle, _ROLES)
    rule = options.paste or _usual_rule(roles)
    masks = partial(_masks, rule=rule, usual_threshold=options.mask_threshold)
    return InstanceTask(bundle, options, roles, _decode, masks)


def _usual_rule(roles: Mapping[str, TensorSpec]) -> Rule:
    return "detectron2" if roles["masks"].name in _DETECTRON2 else "torchvision"


def _decode(outputs: Tensors, model_hw: HW, score_threshold: float) -> Candidates:
    found = torchvision_detection.decode(outputs, model_hw, score_threshold)
    if not _fits(_by_row(outputs).shape, found, model_hw):
        number, (height, width) = len(found.scores), model_hw
        expected = f"[{number}, 1, M, M], [{number}, classes, M, M] or [{number}, 1, {height}, {width}]"
        raise Misfit("masks", expected, outputs["masks"].shape)
    return found


def _fits(shape: tuple[int, ...], found: Candidates, model_hw: HW) -> bool:
    if len(shape) != 4 or shape[0] != len(found.scores):
        return False
    _, channels, height, width = shape
    if channels == 1:
        return (height, width) == model_hw or height == width > 0
    return height == width > 0 and found.classes.max(initial=-1) < channels


def _by_row(outputs: Tensors) -> npt.NDArray[Any]:
    """`masks` as [N, C, h, w], without a batch axis."""
    masks = outputs["masks"]
    if outputs["boxes"].ndim == 3 and masks.ndim > 3 and masks.shape[0] == 1:
        masks = masks[0]
    return masks[:, None] if masks.ndim == 3 else masks


def _masks(found: Found, threshold: float | None, *, rule: Rule, usual_threshold: float) -> Iterator[Measured]:
    masks = _by_row(found.outputs)
    above = usual_threshold if threshold is None else threshold
    whole = masks.shape[2:] == found.resize.model_hw
    place = _enlarged(found.resize) if whole else _in_box(_RULES[rule], found.resize.source_hw)
    for row, index, box in zip(found.rows, found.classes, found.boxes_xyxy, strict=True):
        plane = masks[row, index if masks.shape[1] > 1 else 0].astype(np.float32, copy=False)
        yield place(plane, box, above)


def _in_box(paste: Paste, source_hw: HW) -> Place:
    """Small planes, each in its box."""
    return lambda plane, box, threshold: rle.measured(paste(plane, box, source_hw, threshold))


def _enlarged(resize: Resize) -> Place:
    """Planes over the whole tensor, of which only what lies near the box is looked at."""
    to_source = enlargement.content(resize.model_hw, resize)
    scale = np.array([s / c for s, c in zip(resize.source_hw, resize.content_hw, strict=True)][::-1])

    def mask(plane: Float32, box: Float32, threshold: float) -> Measured:
        margin = (box[2:] - box[:2]) * _MARGIN + _MARGIN_PX * scale
        near = [*(box[:2] - margin).tolist(), *(box[2:] + margin).tolist()]
        return enlargement.mask(plane, to_source, threshold, near)

    return mask
