"""What networks of a family are usually fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model_server.failures import Stopped

_PER_255 = 1 / 255
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
# The size that free networks of these families were mostly trained at.
_USUAL_SIZE = [640, 640]


def preprocess(family: str, dtype: str, shape: Sequence[int | None]) -> dict[str, Any]:
    """`preprocess` of model.json for an input of this dtype and shape. Raises Stopped where it cannot be a picture."""
    layout = _layout(shape)
    size = [shape[layout.index("H")], shape[layout.index("W")]]
    free = None in size
    fixed = {} if free else {"size": size}
    yolo = {"size": _USUAL_SIZE if free else size, "resize": "letterbox", "scale": _PER_255}
    usual: dict[str, dict[str, Any]] = {
        "yolo": yolo,
        "yolo-seg": yolo,
        "yolox": {
            "size": _USUAL_SIZE if free else size,
            "resize": "letterbox",
            "anchor": "top-left",
            "colour": "BGR",
        },
        "detr": {"resize": "short-side", "side": 800, "max_side": 1333, "scale": _PER_255, **_IMAGENET}
        if free
        else {**fixed, "resize": "stretch", "scale": _PER_255},
        "torchvision-detection": {**fixed, "scale": _PER_255},
        "mask-rcnn": {**fixed, "scale": _PER_255},
        "detectron2": {"colour": "BGR", **({"resize": "short-side", "side": 800, "max_side": 1333} if free else fixed)},
    }
    chosen = {**usual.get(family, {**fixed, "resize": "stretch"}), "layout": layout}
    normalising = ("scale", "mean", "std") if dtype == "uint8" else ()
    return {key: value for key, value in chosen.items() if key not in normalising}


def _layout(shape: Sequence[int | None]) -> str:
    if len(shape) not in (3, 4):
        raise Stopped(f"the input has shape {list(shape)}; expected a picture, of 3 axes or with a batch axis of 4")
    axes = "HWC" if shape[-1] in (1, 3) and shape[-3] != 3 else "CHW"
    return axes if len(shape) == 3 else f"N{axes}"
