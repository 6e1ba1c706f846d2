"""Family `detr`: logits [1, N, columns] and boxes [1, N, 4] (centre and size, 0..1 of the tensor) of N object queries.

    softmax  a column for each label and a last one for "no object", which is left out; the best class of a query (DETR)
    sigmoid  a column for each label; every class of a query that passes (Deformable DETR, DINO, RT-DETR, D-FINE)

`activation` says which; without it the number of columns does. Facebook's DETR has 91 labels (COCO's ids from 0, null
where unused) and 92 columns. Queries are trained to differ, so overlapping boxes stay unless `nms` is true.
Source: models/detr.py of facebookresearch/detr; rtdetr_postprocessor.py of lyuwenyu/RT-DETR.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from shared.geometry import cxcywh_to_xyxy
from shared.tasks.detection import (
    Candidates,
    DetectionTask,
    Misfit,
    Options,
    best_class,
    every_class,
    outputs_by_role,
    read_options,
)

if TYPE_CHECKING:
    from shared.geometry import HW
    from shared.manifest import Bundle
    from shared.tensors import Float32, Tensors

Activation = Literal["softmax", "sigmoid"]

_ROLES = {"logits": ("logits", "pred_logits"), "boxes": ("boxes", "pred_boxes")}


class DetrOptions(Options, frozen=True, kw_only=True):
    nms: bool | None = False
    activation: Activation | None = None


def task(bundle: Bundle) -> DetectionTask:
    options = read_options(bundle, DetrOptions)
    roles = outputs_by_role(bundle, _ROLES)
    decode = partial(_decode, labels=len(bundle.labels), activation=options.activation)
    return DetectionTask(bundle, options, roles, decode)


def _decode(
    outputs: Tensors, model_hw: HW, score_threshold: float, *, labels: int, activation: Activation | None
) -> Candidates:
    """`logits` [1, N, labels or labels + 1] and `boxes` [1, N, 4] -> Candidates."""
    boxes = outputs["boxes"]
    if boxes.ndim != 3 or boxes.shape[0] != 1 or boxes.shape[2] != 4:
        raise Misfit("boxes", "[1, N, 4]", boxes.shape)
    logits = outputs["logits"]
    fitting = [
        kind for kind, columns in _columns(labels, activation).items() if logits.shape == (1, boxes.shape[1], columns)
    ]
    if not fitting:
        raise Misfit("logits", _expected(boxes.shape[1], labels, activation), logits.shape)
    height, width = model_hw
    boxes_xyxy = cxcywh_to_xyxy(boxes[0].astype(np.float32) * np.array([width, height, width, height], np.float32))
    values = logits[0].astype(np.float32, copy=False)
    if fitting[0] == "softmax":
        return best_class(boxes_xyxy, softmax(values)[:, :-1], score_threshold)
    return every_class(boxes_xyxy, sigmoid(values), score_threshold)


def softmax(logits: Float32) -> Float32:
    """[N, C] any range -> [N, C] 0..1 whose rows add up to 1."""
    powers: Float32 = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Float32 = powers / powers.sum(axis=1, keepdims=True)
    return shares


def sigmoid(logits: Float32) -> Float32:
    """[N, C] any range -> 0..1, without overflow."""
    scores: Float32 = np.exp(-np.logaddexp(np.float32(0), -logits))
    return scores


def _columns(labels: int, activation: Activation | None) -> dict[Activation, int]:
    columns: dict[Activation, int] = {"softmax": labels + 1, "sigmoid": labels}
    return {kind: columns[kind] for kind in columns if activation in (None, kind) and labels}


def _expected(queries: int, labels: int, activation: Activation | None) -> str:
    texts = [f"[1, {queries}, {columns}] ({kind})" for kind, columns in _columns(labels, activation).items()]
    return f"{' or '.join(texts)} for {labels} labels"
