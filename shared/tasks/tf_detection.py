"""Family `tf-detection`: the outputs of the TensorFlow Object Detection API.

Boxes are normalised [ymin, xmin, ymax, xmax]. Either the graph has suppressed overlapping boxes and gives a class for
each (`detection_boxes`, `detection_scores`, `detection_classes`, perhaps `num_detections`: what lies behind that count
is padding), or it gives a score for every class (`boxes`, `scores` [1, N, C]).
Source: research/object_detection/exporter.py of tensorflow/models.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import ConfigurationError
from shared.tasks.detection import (
    Candidates,
    DetectionTask,
    Misfit,
    Options,
    every_class,
    outputs_by_role,
    read_options,
)

if TYPE_CHECKING:
    from shared.geometry import HW
    from shared.manifest import Bundle
    from shared.tensors import Float32, Tensors

_ROLES = {
    "boxes": ("boxes", "detection_boxes", "raw_detection_boxes"),
    "scores": ("scores", "detection_scores", "raw_detection_scores"),
    "classes": ("classes", "detection_classes"),
    "count": ("num_detections", "count"),
}


class TfOptions(Options, frozen=True, kw_only=True):
    first_class_id: int = 1


def task(bundle: Bundle) -> DetectionTask:
    options = read_options(bundle, TfOptions)
    roles = outputs_by_role(bundle, _ROLES, optional=("classes", "count"))
    if "count" in roles and "classes" not in roles:
        raise ConfigurationError("outputs: a count without classes; give the classes their role")
    decode = partial(_decode, columns=len(bundle.labels), first_class_id=options.first_class_id)
    return DetectionTask(bundle, options, roles, decode)


def _decode(outputs: Tensors, model_hw: HW, score_threshold: float, *, columns: int, first_class_id: int) -> Candidates:
    boxes = _boxes(outputs, model_hw)
    scores = outputs["scores"]
    if "classes" not in outputs:
        if scores.shape != (1, len(boxes), columns):
            raise Misfit("scores", f"[1, {len(boxes)}, {columns}], a column for each label", scores.shape)
        return every_class(boxes, scores[0].astype(np.float32, copy=False), score_threshold)
    classes = outputs["classes"]
    for name, array in (("scores", scores), ("classes", classes)):
        if array.shape != (1, len(boxes)):
            raise Misfit(name, f"[1, {len(boxes)}]", array.shape)
    if "count" in outputs and outputs["count"].size != 1:
        raise Misfit("count", "[1]", outputs["count"].shape)
    count = int(np.clip(outputs["count"].item(), 0, len(boxes))) if "count" in outputs else len(boxes)
    indices = classes[0, :count].astype(np.int64) - first_class_id
    return Candidates(boxes[:count], scores[0, :count].astype(np.float32), indices, suppressed=True)


def _boxes(outputs: Tensors, model_hw: HW) -> Float32:
    """`boxes` [1, N, 4] ymin, xmin, ymax, xmax in 0..1 -> [N, 4] xyxy in tensor pixels."""
    boxes = outputs["boxes"]
    if boxes.ndim != 3 or boxes.shape[0] != 1 or boxes.shape[2] != 4:
        raise Misfit("boxes", "[1, N, 4]", boxes.shape)
    height, width = model_hw
    scale = np.array([width, height, width, height], np.float32)
    corners: Float32 = boxes[0][:, [1, 0, 3, 2]].astype(np.float32, copy=False) * scale
    return corners
