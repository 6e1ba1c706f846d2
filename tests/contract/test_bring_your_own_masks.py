"""A folder with a graph and a `model.json`, no code: masks come back on the right pixels for every family and head."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

from shared.call import Call
from shared.masks import rle
from shared.predictions import Instance, Rle
from shared.service import Service
from shared.settings import Settings
from tests.graphs import Input
from tests.mask_graphs import HEADS, write_bundle

SCENES = {"square": (192, 192), "wide": (240, 480), "tall": (640, 200), "large": (1800, 2400)}
"""Heights and widths."""


def scene(hw: tuple[int, int]) -> tuple[bytes, dict[str, Any]]:
    """A grey picture with a red ellipse and a blue triangle, and which pixels are theirs."""
    height, width = hw
    shapes = {"red": Pillow.new("1", (width, height)), "blue": Pillow.new("1", (width, height))}
    ImageDraw.Draw(shapes["red"]).ellipse((width // 8, height // 8, width * 3 // 8, height // 2), fill=1)
    corners = [(width // 2, height * 7 // 8), (width * 7 // 8, height * 7 // 8), (width * 7 // 8, height // 2)]
    ImageDraw.Draw(shapes["blue"]).polygon(corners, fill=1)
    picture = Pillow.new("RGB", (width, height), (90, 90, 90))
    for colour, mask in shapes.items():
        picture.paste(colour, mask=mask)
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue(), {name: np.asarray(mask) for name, mask in shapes.items()}


def found(models: Path, picture: bytes) -> dict[str, Instance]:
    service = Service(Settings(models=str(models), threads=1))
    prediction = service.predict(service.find(None), picture, {}, Call("test", 60)).prediction
    return {one.label: one for one in prediction.predictions}


def bits(instance: Instance, hw: tuple[int, int]) -> Any:
    assert isinstance(instance.mask, Rle)
    placed = rle.decoded(instance.mask)
    whole = np.zeros(hw, bool)
    height, width = placed.bits.shape
    whole[placed.top : placed.top + height, placed.left : placed.left + width] = placed.bits
    return whole


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_masks_the_things_in_every_picture(head: str, name: str, tmp_path: Path) -> None:
    write_bundle(tmp_path, head, Input((320, 384), scale=1 / 255), resize="letterbox")
    picture, expected = scene(SCENES[name])
    things = found(tmp_path, picture)
    assert things.keys() == {"red", "blue"}
    for label, thing in things.items():
        mask = bits(thing, SCENES[name])
        union = (mask | expected[label]).sum()
        assert (mask & expected[label]).sum() / union > 0.85, label
        assert thing.area == mask.sum()


@pytest.mark.parametrize("head", HEADS)
def test_every_head_masks_nothing_in_a_grey_picture(head: str, tmp_path: Path) -> None:
    write_bundle(tmp_path, head, Input((96, 96), scale=1 / 255), resize="letterbox")
    buffer = BytesIO()
    Pillow.new("RGB", (150, 100), (90, 90, 90)).save(buffer, "PNG")
    assert found(tmp_path, buffer.getvalue()) == {}
