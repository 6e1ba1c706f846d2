"""The four tasks on NVIDIA's own server and in this process: the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

pytest.importorskip("gevent")

from model_server.triton.config import Serving
from model_server.triton.repository import write_repository
from shared.call import Call
from shared.masks import rle
from shared.predictions import Prediction, Rle
from shared.service import Service
from shared.settings import Settings
from tests.model_servers import ModelServer, triton
from tests.servers import ROOT

pytestmark = pytest.mark.servers

MODELS = ROOT / "model_server" / "models"
BUNDLES = ("coco-ssd-mobilenet-v2", "mobile-sam", "coco-ssd-mobile-sam", "esrgan-slim")
STREET = ROOT / "shared" / "web" / "static" / "samples" / "street.jpg"
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "detection": ("coco-ssd-mobilenet-v2", {}),
    "instances": ("coco-ssd-mobile-sam", {}),
    "a point": ("mobile-sam", {"points": [[448, 560]], "return_logits": True}),
    "boxes": ("mobile-sam", {"boxes": [[390, 435, 502, 694], [1100, 400, 1220, 620]], "multimask": False}),
    "everything": ("mobile-sam", {"points_per_side": 6, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.8}),
    "twice as large": ("esrgan-slim", {"scale": 2, "twin": True}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    out = tmp_path_factory.mktemp("served") / "repository"
    write_repository([MODELS / name for name in BUNDLES], out, Serving(platform="python", forward="encoded"))
    with triton(out) as running:
        yield running


@pytest.fixture(scope="module")
def embedded() -> Service:
    return Service(Settings(models=str(MODELS)))


@pytest.fixture(scope="module", params=["tensor", "encoded"])
def external(request: pytest.FixtureRequest, server: ModelServer) -> Service:
    return Service(Settings(models=str(MODELS), backend="triton", backend_url=server.http_url, forward=request.param))


def ask(service: Service, question: str) -> Prediction[Any]:
    name, given = QUESTIONS[question]
    source = small(STREET) if name == "esrgan-slim" else STREET.read_bytes()
    return service.predict(service.find(name), source, given, Call("test", 300)).prediction


def small(path: Path) -> bytes:
    """A part of a photo, so that several tiles are not needed."""
    file = BytesIO()
    with Pillow.open(path) as photo:
        photo.crop((400, 500, 560, 640)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("question", [name for name in QUESTIONS if name != "twice as large"])
def test_what_is_found_is_the_same_on_the_server_as_in_this_process(
    question: str, embedded: Service, external: Service
) -> None:
    ours, theirs = ask(embedded, question).predictions, ask(external, question).predictions
    assert len(theirs) == len(ours) > 0
    for own, other in zip(ours, theirs, strict=True):
        assert other.score == pytest.approx(own.score, abs=1e-3)
        assert other.box == pytest.approx(own.box, abs=1.0)
        if isinstance(getattr(own, "mask", None), Rle):
            assert overlap(own.mask, other.mask) > 0.995


def test_an_enlarged_picture_is_the_same_on_the_server_as_in_this_process(embedded: Service, external: Service) -> None:
    (own,), (other,) = (ask(service, "twice as large").predictions for service in (embedded, external))
    assert (other.width, other.height) == (own.width, own.height) == (320, 280)
    assert np.abs(pixels(other.image) - pixels(own.image)).max() <= 1
    assert other.twin == own.twin


def test_a_picture_is_encoded_there_once_by_each_of_the_two_instances_however_often_it_is_clicked(
    server: ModelServer,
) -> None:
    service = Service(Settings(models=str(MODELS), backend="triton", backend_url=server.http_url, forward="encoded"))
    calls = [Call("test", 300) for _ in range(5)]
    found = [
        service.predict(service.find("mobile-sam"), small(STREET), {"points": [[80, 70]]}, call).prediction
        for call in calls
    ]
    assert 1 <= sum("server_encode" in call.stages_ms for call in calls) <= 2
    assert all(one == found[0] for one in found)


def test_masks_are_drawn_the_same_there(embedded: Service, external: Service) -> None:
    name, given = QUESTIONS["boxes"]
    drawn = [
        service.predict(service.find(name), STREET.read_bytes(), given, Call("test", 300), "png").picture
        for service in (embedded, external)
    ]
    own, other = map(pixels, drawn)
    assert (np.abs(own - other).max(axis=2) > 2).mean() < 0.001


def overlap(one: Rle, other: Rle) -> float:
    first, second = whole(one), whole(other)
    return float((first & second).sum() / (first | second).sum())


def whole(mask: Rle) -> Any:
    placed = rle.decoded(mask)
    plane = np.zeros(mask.size, bool)
    height, width = placed.bits.shape
    plane[placed.top : placed.top + height, placed.left : placed.left + width] = placed.bits
    return plane


def pixels(encoded: bytes) -> Any:
    with Pillow.open(BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16)
