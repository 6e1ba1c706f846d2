"""The usual way from a segmenter's small planes to COCO's run lengths, and ours.

Run as a program with a way's name and a number of instances, it prints by how many MB that way's peak memory passes
what the process held before, with everything imported and one instance done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.geometry import letterbox
from shared.masks import enlargement
from shared.predictions import Rle
from tests.bench.processes import status_mb

OURS = "ours"
USUAL = ("Pillow resize + pycocotools", "cv2 resize + pycocotools")
SOURCE_HW = (720, 1280)
_PLANE = 160
_FRAME = letterbox(SOURCE_HW, (640, 640), center=True)
_CONTENT = np.s_[35:125]  # of the 160 rows: the rest is padding


@dataclass(frozen=True)
class Scene:
    """What a segmenter leaves: logits [N, 160, 160] float32, and boxes [N, 4] xyxy in source pixels."""

    planes: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]


Plane: TypeAlias = npt.NDArray[np.float32]
Way: TypeAlias = Callable[[Scene], list[Rle]]


def scene(instances: int) -> Scene:
    """Things with wavy edges, from 60 to 400 pixels wide."""
    random = np.random.default_rng(instances)
    height, width = SOURCE_HW
    sizes = random.uniform(60, 400, (instances, 2))
    middles = random.uniform(sizes / 2, np.array([width, height]) - sizes / 2)
    y, x = np.mgrid[:_PLANE, :_PLANE] + 0.5
    planes = []
    for (at_x, at_y), (wide, high) in zip(middles, sizes, strict=True):
        right, down = (x * 8 - at_x) / wide * 2, ((y - 35) * 8 - at_y) / high * 2
        planes.append(8 * (0.9 + 0.08 * np.sin(7 * np.arctan2(down, right)) - np.hypot(right, down)))
    boxes = np.concatenate([middles - sizes / 2, middles + sizes / 2], axis=1)
    return Scene(np.array(planes, np.float32), boxes.astype(np.float32))


def ways() -> dict[str, Way]:
    """By name; those whose package is missing are left out."""
    known: dict[str, Way] = {OURS: _ours}
    if not find_spec("pycocotools"):
        return known
    coco = import_module("pycocotools.mask")
    known[USUAL[0]] = partial(_usual, coco, _with_pillow)
    if find_spec("cv2"):
        cv2 = import_module("cv2")
        cv2.setNumThreads(1)
        known[USUAL[1]] = partial(_usual, coco, partial(cv2.resize, dsize=SOURCE_HW[::-1]))
    return known


def _ours(found: Scene) -> list[Rle]:
    enlarging = enlargement.content((_PLANE, _PLANE), _FRAME)
    return [
        enlargement.mask(plane, enlarging, box=box.tolist()).rle
        for plane, box in zip(found.planes, found.boxes, strict=True)
    ]


def _usual(coco: Any, resize: Callable[[Plane], Plane], found: Scene) -> list[Rle]:
    """Every plane enlarged to the picture and cut to its box; the masks then encoded together, as references do."""
    height, width = SOURCE_HW
    masks = np.zeros((len(found.planes), height, width), np.uint8)
    y, x = np.arange(height)[:, None], np.arange(width)
    for mask, plane, (x1, y1, x2, y2) in zip(masks, found.planes, found.boxes, strict=True):
        mask[:] = (resize(plane[_CONTENT]) > 0) & (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    encoded = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    return [Rle(SOURCE_HW, rle["counts"].decode()) for rle in encoded]


def _with_pillow(plane: Plane) -> Plane:
    return np.asarray(Image.fromarray(plane).resize(SOURCE_HW[::-1], Image.Resampling.BILINEAR))


def _peak_mb(way: Way, instances: int) -> float:
    way(scene(1))
    found = scene(instances)
    before = status_mb("self", "VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    way(found)
    return status_mb("self", "VmHWM") - before


if __name__ == "__main__":
    sys.stdout.write(f"{_peak_mb(ways()[sys.argv[1]], int(sys.argv[2])):.3f}\n")
