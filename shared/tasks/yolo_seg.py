"""Family `yolo-seg`: the boxes of family `yolo`, each with K coefficients behind its own columns, and K prototypes.

    detections   [1, 4+C+K, N], [1, N, 4+C+K] (v8), [1, N, 5+C+K] (v5) or [1, N, 6+K] (end-to-end)
    prototypes   [1, K, h, w], or [1, h, w, K] of TensorFlow exports; K is mostly 32, h and w a quarter of the tensor's

A mask is the sum of the prototypes times the box's coefficients, as logits: enlarged to the source bilinearly, above 0,
inside its box. `mask_threshold` is the probability of that logit. Overlapping boxes go before masks are made.
`head`, `coordinates` and what the networks take are as in family `yolo`.
Source: process_mask_native of utils/ops.py in ultralytics/ultralytics.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf, log
from typing import TYPE_CHECKING

import numpy as np

from shared.masks import enlargement
from shared.tasks import yolo
from shared.tasks.detection import Candidates, Found, Misfit, Threshold, outputs_by_role, read_options
from shared.tasks.instances import InstanceTask
from shared.tasks.yolo import Heads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.geometry import HW
    from shared.manifest import Bundle
    from shared.masks.placed import Measured
    from shared.tensors import Float32, Int64, Shape, Tensors

_ROLES = {
    "detections": ("output0", "output", "detections", "predictions"),
    "prototypes": ("output1", "prototypes", "protos", "proto"),
}
_CHANNELS = (1, 3)  # the axis of the prototypes' K: PyTorch's, else TensorFlow's
_MARGIN = 2  # elements beside a box: one for the interpolation, one because the padding is cut at whole ones


class YoloSegOptions(yolo.YoloOptions, frozen=True, kw_only=True):
    mask_threshold: Threshold = 0.5


def task(bundle: Bundle) -> InstanceTask:
    options = read_options(bundle, YoloSegOptions)
    roles = outputs_by_role(bundle, _ROLES)
    heads = Heads(len(bundle.labels), options.head)
    try:
        _check(heads, roles["detections"].shape, roles["prototypes"].shape)
    except Misfit as misfit:
        raise yolo.unreadable(bundle, roles[misfit.role].name, misfit) from misfit
    decode = partial(_decode, heads=heads, normalised=options.coordinates == "normalised")
    masks = partial(_masks, heads=heads, usual_threshold=options.mask_threshold)
    return InstanceTask(bundle, options, roles, decode, masks)


def _decode(outputs: Tensors, model_hw: HW, score_threshold: float, *, heads: Heads, normalised: bool) -> Candidates:
    fitting, _ = _found(outputs, heads)
    output = outputs["detections"]
    head = fitting.found(output.shape)
    rows = fitting.rows(output, head)
    return yolo.candidates(rows, head, heads.classes, model_hw, score_threshold, normalised=normalised)


def _masks(found: Found, threshold: float | None, *, heads: Heads, usual_threshold: float) -> Iterator[Measured]:
    fitting, prototypes = _found(found.outputs, heads)
    output = found.outputs["detections"]
    coefficients = fitting.rows(output, fitting.found(output.shape))[found.rows, -fitting.extra :]
    above = _logit(usual_threshold if threshold is None else threshold)
    to_source = enlargement.content(prototypes.shape[1:], found.resize)
    windows = _windows(found, prototypes.shape[1:])
    for factors, (top, bottom), box in zip(coefficients, windows.tolist(), found.boxes_xyxy.tolist(), strict=True):
        yield enlargement.mask(_plane(factors, prototypes, top, bottom), to_source, above, box)


def _found(outputs: Tensors, heads: Heads) -> tuple[Heads, Float32]:
    """The heads with as many coefficients as there are prototypes, and those [K, h, w] float32. Raises Misfit."""
    prototypes = outputs["prototypes"]
    axis = _axis_of_k(heads, outputs["detections"].shape, prototypes.shape)
    planes = prototypes[0] if axis == _CHANNELS[0] else prototypes[0].transpose(2, 0, 1)
    return replace(heads, extra=len(planes)), np.ascontiguousarray(planes, np.float32)


def _check(heads: Heads, detections: Shape, prototypes: Shape) -> None:
    """Raises Misfit where the declared shapes cannot be those of one network."""
    coefficients = prototypes[_axis_of_k(heads, detections, prototypes)]
    if coefficients is not None:
        replace(heads, extra=coefficients).declared(detections)


def _axis_of_k(heads: Heads, detections: Shape, prototypes: Shape) -> int:
    """The axis of the prototypes whose number fits the columns of the detections; PyTorch's where neither does."""
    if len(prototypes) != 4 or prototypes[0] not in (1, None):
        raise Misfit("prototypes", "[1, K, h, w] or [1, h, w, K]", prototypes)
    fitting = [axis for axis in _CHANNELS if (count := prototypes[axis]) is None or _fits(heads, count, detections)]
    return next(iter(fitting), _CHANNELS[0])


def _fits(heads: Heads, coefficients: int, detections: Shape) -> bool:
    return replace(heads, extra=coefficients).fits(detections)


def _windows(found: Found, plane_hw: HW) -> Int64:
    """The rows of the prototypes [N, 2] that each box needs, from the first to behind the last."""
    boxes = found.resize.boxes_to_model(found.boxes_xyxy)
    scale = plane_hw[0] / found.resize.model_hw[0]
    first, last = np.floor(boxes[:, 1] * scale) - _MARGIN, np.ceil(boxes[:, 3] * scale) + _MARGIN
    rows: Int64 = np.clip(np.stack([first, last], axis=1), 0, plane_hw[0]).astype(np.int64)
    return rows


def _plane(factors: Float32, prototypes: Float32, top: int, bottom: int) -> Float32:
    """The logits [h, w] of one mask in its rows from `top` to `bottom`."""
    count, height, width = prototypes.shape
    plane = np.zeros((height, width), np.float32)
    rows = prototypes.reshape(count, -1)[:, top * width : bottom * width]
    plane[top:bottom] = (factors @ rows).reshape(-1, width)
    return plane


def _logit(probability: float) -> float:
    if probability in (0, 1):
        return inf if probability else -inf
    return log(probability / (1 - probability))
