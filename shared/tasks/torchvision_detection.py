"""Family `torchvision-detection`: boxes [N, 4] (corners in tensor pixels), labels [N] and scores [N]; N may be 0.

Faster R-CNN, RetinaNet, FCOS and SSD of torchvision, which suppress overlapping boxes themselves. A leading batch axis
of 1 is taken too. The first label is the background, so that `labels` of model.json begins with null and class 1 is the
first thing; class ids are the network's own. The network normalises and resizes inside: it takes RGB with `scale` 1/255
of any size, usually without a batch axis (`"layout": "CHW"`).
Source: torchvision/models/detection/transform.py and roi_heads.py of pytorch/vision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shared.tasks.detection import Candidates, DetectionTask, Misfit, Options, outputs_by_role, read_options

if TYPE_CHECKING:
    from shared.geometry import HW
    from shared.manifest import Bundle
    from shared.tensors import Tensors

_ROLES = {"boxes": ("boxes",), "labels": ("labels",), "scores": ("scores",)}


def task(bundle: Bundle) -> DetectionTask:
    return DetectionTask(bundle, read_options(bundle, Options), outputs_by_role(bundle, _ROLES), decode)


def decode(outputs: Tensors, model_hw: HW, score_threshold: float) -> Candidates:  # noqa: ARG001
    """`boxes` [N, 4], `labels` [N] and `scores` [N], or each with a batch axis of 1 -> Candidates."""
    boxes = outputs["boxes"]
    batched = boxes.ndim == 3
    if boxes.ndim not in (2, 3) or boxes.shape[-1] != 4 or (batched and boxes.shape[0] != 1):
        raise Misfit("boxes", "[N, 4] or [1, N, 4]", boxes.shape)
    expected = boxes.shape[:-1]
    for role in ("labels", "scores"):
        if outputs[role].shape != expected:
            raise Misfit(role, str(list(expected)), outputs[role].shape)
    scores = outputs["scores"].reshape(-1).astype(np.float32)
    labels = outputs["labels"].reshape(-1).astype(np.int64)
    return Candidates(boxes.reshape(-1, 4).astype(np.float32), scores, labels, suppressed=True)
