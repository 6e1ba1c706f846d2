"""The shipped enlarger in ONNX Runtime: tiles give what the whole picture gives, for every kind of picture."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image as Pillow

from shared import tasks
from shared.backends import Run, connect
from shared.call import Call
from shared.images import Decoding
from shared.manifest import read_bundle
from shared.settings import Settings
from tests.hostile_pictures import saved

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = read_bundle(ROOT / "model_server/models/esrgan-slim")
TASK = tasks.build(BUNDLE)
STREET = ROOT / "shared/web/static/samples/street.jpg"
_WHOLE, _NO_LIMIT = 1 << 20, 1 << 60


@pytest.fixture(scope="module")
def runs() -> Mapping[str, Run]:
    backend = connect("onnx", Settings.from_environ({}))
    return {name: backend.open(BUNDLE.network(name)) for name in BUNDLE.network_names}


def street(width: int, height: int) -> Pillow.Image:
    with Pillow.open(STREET) as image:
        return image.convert("RGB").resize((width, height), Pillow.Resampling.BICUBIC)


def enlarged(image: Pillow.Image, scale: int, runs: Mapping[str, Run], side: int = 0) -> Pillow.Image:
    decoding = Decoding(saved(image, "PNG"), 10_000_000)
    params = msgspec.structs.replace(TASK.defaults, scale=scale)
    plan = TASK.plan(decoding, params, _NO_LIMIT)
    plan = msgspec.structs.replace(plan, side=side) if side else plan
    found = TASK.predict(decoding, plan, params, runs, Call("test", 600)).predictions[0]
    return Pillow.open(BytesIO(found.image))


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_tiles_give_exactly_what_the_whole_picture_gives(scale: int, runs: Mapping[str, Run]) -> None:
    image = street(200, 150)
    whole, tiled = (np.asarray(enlarged(image, scale, runs, side)).astype(int) for side in (_WHOLE, 80))
    assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("size", [(701, 700), (33, 1), (1, 33), (1, 1)])
def test_a_picture_of_any_size_becomes_four_times_as_large(size: tuple[int, int], runs: Mapping[str, Run]) -> None:
    assert enlarged(street(*size), 4, runs).size == (4 * size[0], 4 * size[1])


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_a_picture_keeps_its_kind(mode: str, runs: Mapping[str, Run]) -> None:
    assert enlarged(street(60, 40).convert(mode), 4, runs).mode == mode


def test_the_result_looks_like_its_source(runs: Mapping[str, Run]) -> None:
    image = street(200, 150)
    again = np.asarray(enlarged(image, 4, runs).reduce(4)).astype(int)
    assert np.abs(again - np.asarray(image)).mean() < 6
