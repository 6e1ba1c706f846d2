"""A folder with a graph and a `model.json`, no code: boxes come back at the right place for every family and head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from shared.call import Call
from shared.errors import Failure, ModelBroken, ModelOutputMismatch
from shared.predictions import Detection, Prediction
from shared.service import Service
from shared.settings import Settings
from tests.graphs import HEADS, Input, write_bundle

Box = tuple[int, int, int, int]
GREY = (90, 90, 90)
RED, BLUE = (255, 0, 0), (0, 0, 255)


@dataclass(frozen=True)
class Scene:
    """A grey picture with a red thing at its upper left and a blue one at its lower right."""

    hw: tuple[int, int]
    format: str = "PNG"
    orientation: int = 1

    @property
    def red(self) -> Box:
        return self._part(1 / 8, 1 / 6, 3 / 8, 1 / 2)

    @property
    def blue(self) -> Box:
        return self._part(1 / 2, 1 / 2, 7 / 8, 5 / 6)

    def _part(self, left: float, top: float, right: float, bottom: float) -> Box:
        height, width = self.hw
        return round(left * width), round(top * height), round(right * width), round(bottom * height)

    def encoded(self) -> bytes:
        image = Pillow.new("RGB", self.hw[::-1], GREY)
        image.paste(RED, self.red)
        image.paste(BLUE, self.blue)
        exif = Pillow.Exif()
        exif[0x0112] = self.orientation
        if self.orientation == 6:
            image = image.transpose(Pillow.Transpose.ROTATE_90)
        buffer = BytesIO()
        image.save(
            buffer, self.format, exif=exif, **({"quality": 95, "subsampling": 0} if self.format == "JPEG" else {})
        )
        return buffer.getvalue()


SCENES = {
    "square": Scene((96, 96)),
    "wide": Scene((120, 480)),
    "tall": Scene((640, 200)),
    "tiny": Scene((18, 24)),
    "rotated": Scene((360, 480), "JPEG", orientation=6),
    "large": Scene((1800, 2400), "JPEG"),
}
LETTERBOX: dict[str, Any] = {"resize": "letterbox"}


def predict(models: Path, picture: bytes, **given: Any) -> Prediction[Any]:
    service = Service(Settings(models=str(models), threads=1))
    served = service.find(None)
    return service.predict(served, picture, given, Call("test", 60)).prediction


def assert_found(prediction: Prediction[Detection], scene: Scene, tensor_hw: tuple[int, int]) -> None:
    """Red and blue, in this order, each side within one and a half pixels of the tensor."""
    assert prediction.source_hw == scene.hw
    assert [(one.label, round(one.score, 2)) for one in prediction.predictions] == [("red", 0.9), ("blue", 0.7)]
    allowed = 1.5 * max(1, scene.hw[0] / tensor_hw[0], scene.hw[1] / tensor_hw[1])
    for one, box in zip(prediction.predictions, (scene.red, scene.blue), strict=True):
        assert one.box == pytest.approx(box, abs=allowed)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_finds_things_in_every_picture(head: str, name: str, tmp_path: Path) -> None:
    write_bundle(tmp_path, head, Input((96, 160), scale=1 / 255), **LETTERBOX)
    assert_found(predict(tmp_path, SCENES[name].encoded()), SCENES[name], (96, 160))


@pytest.mark.parametrize("head", HEADS)
def test_every_head_finds_nothing_in_a_grey_picture(head: str, tmp_path: Path) -> None:
    write_bundle(tmp_path, head, Input(scale=1 / 255), **LETTERBOX)
    buffer = BytesIO()
    Pillow.new("RGB", (50, 40), GREY).save(buffer, "PNG")
    assert predict(tmp_path, buffer.getvalue()).predictions == ()


@pytest.mark.parametrize(
    ("taken", "preprocess", "tensor_hw"),
    [
        (Input((96, 96)), {"resize": "stretch"}, (96, 96)),
        (Input((64, 160)), {"resize": "stretch"}, (64, 160)),
        (Input((64, 160)), {"resize": "letterbox"}, (64, 160)),
        (Input((160, 64)), {"resize": "letterbox", "anchor": "top-left"}, (160, 64)),
        (Input(None), {"resize": "letterbox", "size": [96, 128]}, (96, 128)),
        (Input(None), {"resize": "stretch", "size": [96, 128]}, (96, 128)),
        (Input(None), {"resize": "stretch"}, (2400, 2400)),
        (Input(None), {"resize": "long-side", "side": 100, "multiple_of": 32}, (100, 100)),
        (Input(None), {"resize": "short-side", "side": 60, "max_side": 160, "multiple_of": 32}, (60, 60)),
    ],
)
@pytest.mark.parametrize("name", SCENES)
def test_every_way_to_resize_finds_its_way_back(
    taken: Input, preprocess: dict[str, Any], tensor_hw: tuple[int, int], name: str, tmp_path: Path
) -> None:
    write_bundle(tmp_path, "yolo v8", taken, **preprocess)
    assert_found(predict(tmp_path, SCENES[name].encoded()), SCENES[name], tensor_hw)


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHW", "HWC"])
def test_every_tensor_a_network_may_want_is_made(layout: str, dtype: str, colour: str, tmp_path: Path) -> None:
    write_bundle(tmp_path, "yolo v8", Input(layout=layout, dtype=dtype, colour=colour), **LETTERBOX)
    assert_found(predict(tmp_path, SCENES["wide"].encoded()), SCENES["wide"], (96, 96))


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_normalised_pixels_are_what_the_network_was_trained_on(colour: str, tmp_path: Path) -> None:
    imagenet = Input(colour=colour, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    write_bundle(tmp_path, "detr", imagenet, **LETTERBOX)
    assert_found(predict(tmp_path, SCENES["tall"].encoded()), SCENES["tall"], (96, 96))


def test_a_yolox_bundle_as_its_authors_prepare_pictures(tmp_path: Path) -> None:
    write_bundle(tmp_path, "yolox", Input((96, 160), colour="BGR"), resize="letterbox", anchor="top-left")
    assert_found(predict(tmp_path, SCENES["tall"].encoded()), SCENES["tall"], (96, 160))


def test_a_torchvision_bundle_as_its_authors_prepare_pictures(tmp_path: Path) -> None:
    write_bundle(tmp_path, "torchvision", Input(None, layout="CHW", scale=1 / 255))
    assert_found(predict(tmp_path, SCENES["large"].encoded()), SCENES["large"], (1800, 2400))


def test_parameters_reach_a_model_that_was_brought(tmp_path: Path) -> None:
    write_bundle(tmp_path, "yolo v5", Input(), **LETTERBOX)
    picture = SCENES["square"].encoded()
    assert [one.label for one in predict(tmp_path, picture, labels=["blue"]).predictions] == ["blue"]
    assert [one.label for one in predict(tmp_path, picture, score_threshold=0.8).predictions] == ["red"]
    assert len(predict(tmp_path, picture, iou_threshold=1.0).predictions) == 4


def changed(folder: Path, change: Any) -> None:
    path = folder / "model.json"
    declared = json.loads(path.read_bytes())
    change(declared)
    path.write_text(json.dumps(declared))


def broken(folder: Path) -> str:
    with pytest.raises(ModelBroken) as caught:
        predict(folder, SCENES["square"].encoded())
    return caught.value.message


def test_a_preprocess_that_contradicts_the_network_is_told(tmp_path: Path) -> None:
    write_bundle(tmp_path, "yolo v8", Input((96, 96)), size=[64, 64])
    assert "preprocess.size: expected [96, 96] as input 'image' declares, found [64, 64]" in broken(tmp_path)


def test_another_shape_than_the_graph_has_is_told(tmp_path: Path) -> None:
    write_bundle(tmp_path, "yolo v8", Input((96, 96)))
    changed(tmp_path, lambda declared: declared["networks"]["detector"]["inputs"][0].update(shape=[1, 3, 64, 64]))
    assert "expected shape [1, 3, 96, 96] as in the graph, found [1, 3, 64, 64] in model.json" in broken(tmp_path)


def test_a_short_side_without_a_limit_for_the_long_one_is_told(tmp_path: Path) -> None:
    write_bundle(tmp_path, "yolo v8", Input(None), resize="short-side", side=800)
    assert "preprocess.max_side: expected a number of pixels" in broken(tmp_path)


def test_labels_that_are_too_few_are_told_before_a_picture_comes(tmp_path: Path) -> None:
    write_bundle(tmp_path, "yolo v8", Input((96, 96)))
    changed(tmp_path, lambda declared: declared.update(labels=["red", "green"]))
    changed(tmp_path, lambda declared: declared["networks"]["detector"]["outputs"][0].update(shape=[1, 7, 8400]))
    assert "'output0' has shape [1, 7, 8400], family 'yolo' expects [1, N, 6] (end-to-end) or" in broken(tmp_path)


@pytest.mark.parametrize(
    ("head", "family", "output", "found"),
    [
        ("yolox decoded", "yolox", "output", [1, 3, 8]),
        ("detr", "detr", "logits", [1, 3, 4]),
        ("tf, raw", "tf-detection", "scores", [1, 6, 3]),
        ("yolo v5", "yolo", "output0", [1, 6, 8]),
    ],
)
def test_outputs_that_do_not_fit_the_labels_are_told(
    head: str, family: str, output: str, found: list[int], tmp_path: Path
) -> None:
    write_bundle(tmp_path, head, Input(), **LETTERBOX)
    changed(tmp_path, lambda declared: declared.update(labels=["one"]))
    changed(tmp_path, lambda declared: [o.update(shape=[None] * len(o["shape"])) for o in _outputs(declared)])
    with pytest.raises(Failure) as caught:
        predict(tmp_path, SCENES["square"].encoded())
    assert isinstance(caught.value, ModelOutputMismatch)
    assert caught.value.message.startswith(f"output '{output}': family '{family}' expects shape")
    assert caught.value.figures["found"] == found


def _outputs(declared: dict[str, Any]) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = declared["networks"]["detector"]["outputs"]
    return outputs


OWN_FAMILY = '''
"""A detector that sees one thing: whatever the graph calls the first one."""

import numpy as np

from shared.tasks.detection import Candidates, DetectionTask, Options, outputs_by_role, read_options


class FirstOptions(Options, frozen=True, kw_only=True):
    sureness: float = 0.5


def task(bundle):
    options = read_options(bundle, FirstOptions)

    def decode(outputs, model_hw, score_threshold):
        boxes = outputs["boxes"][:1]
        return Candidates(boxes, np.full(len(boxes), options.sureness, np.float32), np.zeros(len(boxes), np.int64))

    return DetectionTask(bundle, options, outputs_by_role(bundle, {"boxes": ("boxes",)}), decode)
'''


def test_a_family_of_ones_own_is_named_by_its_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "firstling.py").write_text(OWN_FAMILY)
    monkeypatch.syspath_prepend(tmp_path)
    folder = write_bundle(tmp_path / "own", "torchvision", Input(scale=1 / 255), family="firstling:task", **LETTERBOX)
    changed(folder, lambda declared: declared.update(labels=["first"], postprocess={"sureness": 0.75}))
    scene = SCENES["wide"]
    (found,) = predict(folder, scene.encoded()).predictions
    assert found == Detection("first", 0, 0.75, found.box)
    assert found.box == pytest.approx(scene.red, abs=1.5 * 480 / 96)


def test_several_bundles_are_found_by_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = write_bundle(tmp_path / name, "yolo v8", Input(), **LETTERBOX)
        changed(folder, lambda declared, name=name: declared.update(name=name))
    service = Service(Settings(models=str(tmp_path), threads=1))
    assert (service.find("one").name, service.find("two").name) == ("one", "two")
