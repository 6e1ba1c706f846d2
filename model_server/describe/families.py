"""How a network's outputs are read: the family that was named, or the one that they speak for."""

from __future__ import annotations

from collections.abc import Sequence

from model_server.failures import Stopped
from shared import tasks
from shared.tensors import TensorSpec
from shared.validation import suggest

_INSTANCES = "instance-segmentation"
_TASKS = {"mask-rcnn": _INSTANCES, "yolo-seg": _INSTANCES}
_OF_SEVERAL = ("sam", "sam2", "detector-sam", "image-to-image")
_MASKS = ("masks", "pred_masks", "mask_fcn_probs")
_DETECTRON2 = ("pred_masks", "mask_fcn_probs")
DETECTRON2 = "detectron2"
"""Mask R-CNN's other habits of what it is fed."""


def check(family: str | None) -> None:
    """Raises Stopped for a family that is not known, or whose networks are several."""
    if family is None or ":" in family:
        return
    if family not in tasks.FAMILIES:
        raise Stopped(f"--family: unknown {family!r}; {suggest(family, list(tasks.FAMILIES))}")
    if family in _OF_SEVERAL:
        raise Stopped(
            f"--family: {family} may have several networks, and a file is one: write its model.json by hand; those in "
            "model_server/models show how"
        )


def proposed(outputs: Sequence[TensorSpec]) -> str:
    """The family that the outputs can be of alone. Raises Stopped where that is none, or one of several."""
    names, ranks = {output.name for output in outputs}, sorted(len(output.shape) for output in outputs)
    if names & set(_MASKS) and len(outputs) >= 4:
        return "mask-rcnn"
    if ranks == [3, 4]:
        return "yolo-seg"
    raise Stopped("--family is needed: how the outputs are read (yolo, detr, …), which could be in several ways")


def task_of(family: str) -> str:
    return _TASKS.get(family, "detection")


def habits(family: str, outputs: Sequence[TensorSpec]) -> str:
    """Whose way of preparing a picture is usual: the family's, or that of an exporter which differs."""
    is_detectron2 = any(output.name in _DETECTRON2 for output in outputs)
    return DETECTRON2 if family == "mask-rcnn" and is_detectron2 else family
