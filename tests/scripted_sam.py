"""A SAM whose networks answer by a script: what the reference is given to make golden values, and what the tests give.

The scene is a few ellipses with parts inside parts, one with a hole and one with an island beside it. A point asks for
the smallest ellipse around it, or for a blurred one in its place. Logits are made of sums, products, quotients and
square roots alone, which are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shared.errors import OutOfMemory
from shared.manifest import Bundle, Model
from shared.tasks.crops import Part
from shared.tasks.promptable import PromptableTask
from shared.tasks.sam import task
from shared.validation import convert

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.call import Call
    from shared.tensors import Tensors

    Floats = npt.NDArray[np.float32]

FRAME, PLANE = 256, 64


class Ellipse(NamedTuple):
    """Centre and half axes as shares of the picture's width and height, and how sharp its edge is."""

    x: float
    y: float
    rx: float
    ry: float
    sharpness: float


HOLED, BESIDE = 0, 1
SCENE = (
    Ellipse(0.25, 0.3, 0.2, 0.22, 40),
    Ellipse(0.7, 0.35, 0.18, 0.2, 60),
    Ellipse(0.45, 0.75, 0.35, 0.18, 25),
    Ellipse(0.9, 0.85, 0.07, 0.1, 50),
    Ellipse(0.12, 0.85, 0.08, 0.06, 30),
)
_PARTS = (1.0, 0.62, 0.3)


def scene(hw: tuple[int, int], box: Sequence[float], points_xy: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """What the decoder says of points [B, 2] in the frame of the part `box` (x1, y1, x2, y2) of a picture of `hw`:
    logits [B, 4, 64, 64] and estimates [B, 4]."""
    height, width = hw
    x1, y1, x2, y2 = box
    scale = FRAME / max(x2 - x1, y2 - y1)
    places = (np.arange(PLANE, dtype=np.float32) + np.float32(0.5)) * np.float32(FRAME / PLANE / scale)
    xs, ys = (places + np.float32(x1)) / np.float32(width), (places + np.float32(y1)) / np.float32(height)
    planes, estimates = [], []
    for x, y in (np.asarray(points_xy, np.float64) / scale + [x1, y1]).tolist():
        number, ellipse = _asked(x / width, y / height)
        logits = [_logits(ellipse, number, share, xs, ys) for share in _PARTS]
        planes.append([logits[0] * np.float32(0.5), *logits])
        places_hash = int((x + 0.123) / 7) * 5 + int((y + 0.123) / 7) * 3
        estimates.append(
            [0.5] + [0.75 + 0.25 * ((7 * number + 13 * part + places_hash) % 17) / 16 for part in range(3)]
        )
    return np.array(planes, np.float32), np.array(estimates, np.float32)


def _asked(x: float, y: float) -> tuple[int, Ellipse]:
    around = [
        (each.rx * each.ry, number, each)
        for number, each in enumerate(SCENE)
        if ((x - each.x) / each.rx) ** 2 + ((y - each.y) / each.ry) ** 2 < 1
    ]
    return min(around)[1:] if around else (len(SCENE), Ellipse(round(x, 1), round(y, 1), 0.15, 0.15, 4))


def _logits(ellipse: Ellipse, number: int, share: float, xs: Floats, ys: Floats) -> Floats:
    x, y, rx, ry, sharpness = ellipse
    plane = _cone(Ellipse(x, y, rx * share, ry * share, sharpness), xs, ys)
    if number == HOLED:
        plane = np.minimum(plane, -_cone(Ellipse(x + 0.02, y, 0.03, 0.03, 20), xs, ys))
    if number == BESIDE:
        plane = np.maximum(plane, _cone(Ellipse(x - 0.02, y + 0.25, 0.03, 0.025, 20), xs, ys))
    return np.clip(plane, np.float32(-25), np.float32(25))


def _cone(ellipse: Ellipse, xs: Floats, ys: Floats) -> Floats:
    """Its sharpness in the middle of an ellipse, 0 along its edge, [Y, X]."""
    x, y, rx, ry, sharpness = (np.float32(each) for each in ellipse)
    across, down = (xs - x) / rx, (ys - y) / ry
    away = np.sqrt(across[None] * across[None] + down[:, None] * down[:, None])
    height: Floats = sharpness * (np.float32(1) - away)
    return height


@dataclass
class Encoder:
    """A Run: each call stands for the next part of the picture, and says so in its embedding."""

    calls: int = 0

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        self.calls += 1
        return {"image_embeddings": np.full((1, 1, 1, 1), self.calls - 1, np.float32)}

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


@dataclass
class Decoder:
    """A Run that answers by the scene, in `point_s` for each point; more points than `most` at once are too many for
    its memory."""

    hw: tuple[int, int]
    parts: Sequence[Part]
    most: int = 10_000
    point_s: float = 0.0
    batches: list[int] = field(default_factory=list)

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        points = inputs["point_coords"][:, 0]
        if len(points) > self.most:
            raise OutOfMemory("there is not enough memory for this picture")
        self.batches.append(len(points))
        sleep(self.point_s * len(points))
        part = self.parts[int(inputs["image_embeddings"].item())]
        planes, estimates = scene(self.hw, part[:4], points)
        return {"low_res_masks": planes, "iou_predictions": estimates}

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


def scripted() -> PromptableTask:
    """A SAM with a frame of 256x256 and planes of 64x64."""
    image = {"name": "image", "dtype": "uint8", "shape": [1, FRAME, FRAME, 3]}
    embedding = {"name": "image_embeddings", "dtype": "float32", "shape": [1, 1, 1, 1]}
    decoder = [
        embedding,
        {"name": "point_coords", "dtype": "float32", "shape": [None, None, 2]},
        {"name": "point_labels", "dtype": "float32", "shape": [None, None]},
        {"name": "mask_input", "dtype": "float32", "shape": [None, 1, PLANE, PLANE]},
        {"name": "has_mask_input", "dtype": "float32", "shape": [None]},
    ]
    found = [
        {"name": "low_res_masks", "dtype": "float32", "shape": [None, 4, PLANE, PLANE]},
        {"name": "iou_predictions", "dtype": "float32", "shape": [None, 4]},
    ]
    model = {
        "name": "scripted-sam",
        "task": "promptable-segmentation",
        "family": "sam",
        "licence": "Apache-2.0",
        "source": "made by the tests",
        "networks": {
            "encoder": {"inputs": [image], "outputs": [embedding], "served_as": "encoder"},
            "decoder": {"inputs": decoder, "outputs": found, "served_as": "decoder"},
        },
        "preprocess": {"resize": "letterbox", "anchor": "top-left", "layout": "NHWC"},
    }
    return task(Bundle(convert(model, Model), Path("scripted-sam"), ()))
