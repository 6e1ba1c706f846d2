"""MobileSAM on photographs: what a click or a box gives, against masks drawn by hand and against segment-anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from shared import backends
from shared.call import Call
from shared.embeddings import Memo
from shared.local import LocalPredictor
from shared.manifest import Bundle, read_bundle
from shared.masks import rle
from shared.predictions import Prediction, Rle, Segment
from shared.settings import Settings

_DATA = Path(__file__).parent.parent / "data"
BY_HAND = json.loads((_DATA / "hand_made_masks.json").read_text())
GOLDEN = json.loads((_DATA / "sam.json").read_text())["answers"]
Bits = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(Path(Settings.from_environ({}).models) / "mobile-sam")


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> LocalPredictor:
    return _opened(bundle, Memo(64_000_000))


def _opened(bundle: Bundle, memo: Memo) -> LocalPredictor:
    settings = Settings.from_environ({})
    backend = backends.connect("onnx", settings)
    predictor = LocalPredictor(bundle, lambda: backend, max_pixels=settings.max_pixels, memo=memo)
    predictor.open(warm_up=False)
    return predictor


def ask(predictor: LocalPredictor, source: bytes, **given: Any) -> Prediction[Segment]:
    params = predictor.parse(msgspec.to_builtins(given))
    return predictor.predict(source, params, Call("test", 60), None, lambda call: None).prediction


def whole(mask: object) -> Bits:
    assert isinstance(mask, Rle)
    found = rle.decoded(mask)
    bits = np.zeros(found.source_hw, np.bool_)
    height, width = found.bits.shape
    bits[found.top : found.top + height, found.left : found.left + width] = found.bits
    return bits


def iou(one: Bits, other: Bits) -> float:
    return float((one & other).sum() / (one | other).sum())


@cache
def by_hand(name: str, size: tuple[int, int] | None = None) -> Bits:
    """The mask [H, W] that somebody has drawn, at `size` (height, width) or the one that it was drawn at."""
    height, width = BY_HAND[name]["size"]
    to_hw = size or (height, width)
    scale = (to_hw[1] / width, to_hw[0] / height)
    canvas = Image.new("1", to_hw[::-1])
    polygon = [(x * scale[0], y * scale[1]) for x, y in BY_HAND[name]["polygon"]]
    ImageDraw.Draw(canvas).polygon(polygon, fill=1)
    return np.asarray(canvas)


STREET = 0.8
"""The sample's size over that of the picture that was drawn on."""


def scaled(*numbers: float) -> list[float]:
    return [number * STREET for number in numbers]


CLICKS: list[tuple[str, dict[str, Any]]] = [
    ("face", {"points": [[220, 120]]}),
    ("cat", {"points": [[220, 180]]}),
    ("cup", {"points": [[300, 120], [300, 220]], "multimask": False}),
    ("cup", {"box": [172, 16, 410, 308], "multimask": False}),
    ("car", {"points": [scaled(1130, 680)]}),
    ("car", {"box": scaled(880, 540, 1285, 850)}),
    ("person", {"points": [scaled(548, 640)]}),
]


@pytest.mark.parametrize(("name", "prompt"), CLICKS, ids=lambda given: given if isinstance(given, str) else "")
def test_the_best_mask_is_the_thing_as_drawn_by_hand(
    name: str, prompt: dict[str, Any], predictor: LocalPredictor, photos: Mapping[str, Path]
) -> None:
    found = ask(predictor, photos[BY_HAND[name]["photo"]].read_bytes(), **prompt)
    best = whole(found.predictions[0].mask)
    assert iou(best, by_hand(name, best.shape)) >= 0.8


@pytest.mark.parametrize("name", GOLDEN)
def test_masks_and_scores_are_those_of_segment_anything(
    name: str, predictor: LocalPredictor, photos: Mapping[str, Path]
) -> None:
    asked, expected = dict(GOLDEN[name]["asked"]), GOLDEN[name]["found"]
    source = photos[asked.pop("photo")].read_bytes()
    if "earlier" in asked:
        first = {key: value for key, value in GOLDEN[asked.pop("earlier")]["asked"].items() if key != "photo"}
        asked["mask_input"] = ask(predictor, source, **first, return_logits=True).predictions[0].logits
    found = ask(predictor, source, **asked)
    order = np.argsort(expected["scores"])[::-1]
    for segment, place in zip(found.predictions, order, strict=True):
        assert segment.score == pytest.approx(expected["scores"][place], abs=0.02)
    best = whole(Rle(found.source_hw, expected["masks"][order[0]]))
    assert iou(whole(found.predictions[0].mask), best) >= 0.98


def test_a_point_beside_the_thing_takes_what_is_there_away(
    predictor: LocalPredictor, photos: Mapping[str, Path]
) -> None:
    source = photos["coffee"].read_bytes()
    spoon = (280, 360)
    with_spoon = ask(predictor, source, points=[[190, 140]]).predictions[0]
    without = ask(predictor, source, points=[[190, 140], spoon[::-1]], point_labels=[1, 0]).predictions[0]
    assert whole(with_spoon.mask)[spoon]
    assert not whole(without.mask)[spoon]


def test_a_box_decides_what_a_click_leaves_open(predictor: LocalPredictor, photos: Mapping[str, Path]) -> None:
    source = photos["astronaut"].read_bytes()
    face = ask(predictor, source, points=[[220, 120]]).predictions[0]
    woman = ask(predictor, source, points=[[220, 120]], box=[15, 10, 365, 512], multimask=False).predictions[0]
    assert woman.area > 5 * face.area


def test_an_earlier_mask_and_one_more_point_make_it_better(
    predictor: LocalPredictor, photos: Mapping[str, Path]
) -> None:
    source = photos["street"].read_bytes()
    first = ask(predictor, source, points=[scaled(548, 640)], return_logits=True).predictions[0]
    points = [scaled(548, 640), scaled(550, 780)]
    alone = ask(predictor, source, points=points, multimask=False).predictions[0]
    refined = ask(predictor, source, points=points, mask_input=first.logits, multimask=False).predictions[0]
    assert refined.score > alone.score
    drawn = by_hand("person", (743, 1280))
    assert iou(whole(refined.mask), drawn) >= iou(whole(alone.mask), drawn)


def test_boxes_together_give_what_each_gives_alone(predictor: LocalPredictor, photos: Mapping[str, Path]) -> None:
    source = photos["street"].read_bytes()
    boxes = [scaled(495, 535, 612, 870), scaled(880, 540, 1285, 850), scaled(650, 580, 705, 740)]
    together = ask(predictor, source, boxes=boxes, multimask=False).predictions
    for segment in together:
        assert segment.prompt is not None
        alone = ask(predictor, source, box=boxes[segment.prompt], multimask=False).predictions[0]
        assert segment.score == pytest.approx(alone.score, abs=1e-3)
        assert iou(whole(segment.mask), whole(alone.mask)) > 0.999


def test_a_returned_embedding_gives_the_same_masks_without_the_picture(
    predictor: LocalPredictor, photos: Mapping[str, Path]
) -> None:
    first = ask(predictor, photos["astronaut"].read_bytes(), points=[[220, 120]], return_embedding=True)
    again = ask(predictor, b"", points=[[220, 120]], embedding=first.embedding)
    assert again.source_hw == first.source_hw
    assert iou(whole(again.predictions[0].mask), whole(first.predictions[0].mask)) > 0.999


def test_a_folder_of_embeddings_gives_the_same_masks(
    bundle: Bundle, predictor: LocalPredictor, photos: Mapping[str, Path], tmp_path: Path
) -> None:
    source = photos["coffee-small"].read_bytes()
    for _ in range(2):  # the first writes the folder, the second reads it
        found = ask(_opened(bundle, Memo(0, tmp_path)), source, points=[[100, 50]])
        assert found == ask(predictor, source, points=[[100, 50]])
    assert len(list(tmp_path.iterdir())) == 1


def test_requests_at_the_same_time_never_mix(
    bundle: Bundle, predictor: LocalPredictor, photos: Mapping[str, Path]
) -> None:
    names = ["astronaut-small", "chelsea-small", "coffee-small", "street-small"]
    asked = [(name, [40 + 15 * step, 60 + 10 * step]) for step in range(4) for name in names]
    sources = {name: photos[name].read_bytes() for name in names}
    alone = {(name, *point): ask(predictor, sources[name], points=[point]) for name, point in asked}
    crowded = _opened(bundle, Memo(9_000_000))  # room for two pictures of the four
    with ThreadPoolExecutor(4) as pool:
        found = [(one, pool.submit(ask, crowded, sources[one[0]], points=[one[1]])) for one in asked]
        for (name, point), answer in found:
            assert answer.result() == alone[name, *point]
