from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Pillow

from shared import tasks
from shared.call import Call
from shared.embeddings import Memo
from shared.errors import ConfigurationError, InvalidParameter
from shared.images import Decoding
from shared.manifest import Bundle, Model
from shared.masks import rle
from shared.parameters import parse
from shared.predictions import Instance, Prediction, Rle
from shared.validation import convert
from tests.bundles import Answers, ask, bundle, floats, picture

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.tensors import Tensors

FRAME = 64
PLANE = 32


def sam(**rest: Any) -> Bundle:
    """A SAM with a frame of 64x64 and planes of 32x32."""
    declared = {
        "name": "small-sam",
        "task": "promptable-segmentation",
        "family": "sam",
        "licence": "Apache-2.0",
        "source": "made by the tests",
        "networks": {
            "encoder": {
                "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, FRAME, FRAME, 3]}],
                "outputs": [{"name": "image_embeddings", "dtype": "float32", "shape": [1, 1, 1, 1]}],
                "served_as": "encoder",
            },
            "decoder": {
                "inputs": [
                    {"name": "image_embeddings", "dtype": "float32", "shape": [1, 1, 1, 1]},
                    {"name": "point_coords", "dtype": "float32", "shape": [None, None, 2]},
                    {"name": "point_labels", "dtype": "float32", "shape": [None, None]},
                    {"name": "mask_input", "dtype": "float32", "shape": [None, 1, PLANE, PLANE]},
                    {"name": "has_mask_input", "dtype": "float32", "shape": [None]},
                ],
                "outputs": [
                    {"name": "low_res_masks", "dtype": "float32", "shape": [None, 4, PLANE, PLANE]},
                    {"name": "iou_predictions", "dtype": "float32", "shape": [None, 4]},
                ],
                "served_as": "decoder",
            },
        },
        "preprocess": {"size": [FRAME, FRAME], "resize": "letterbox", "anchor": "top-left", "layout": "NHWC"},
    }
    return Bundle(convert(declared | rest, Model), Path("small-sam"), ())


def detector(**rest: Any) -> Bundle:
    outputs: Any = [("boxes", [None, 4]), ("labels", [None]), ("scores", [None])]
    return bundle("torchvision-detection", outputs, [None, "cat", "dog"], **rest)


def composed(parts: Mapping[str, Bundle] | None = None, **rest: Any) -> Bundle:
    parts = {"detector": detector(), "segmenter": sam()} if parts is None else parts
    declared = {
        "name": "both",
        "task": "instance-segmentation",
        "family": "detector-sam",
        "licence": "Apache-2.0",
        "source": "made by the tests",
        "bundles": {role: part.model.name for role, part in parts.items()},
    }
    return Bundle(convert(declared | rest, Model), Path("both"), (), dict(parts))


@dataclass
class Encoder(Answers):
    """A Run that counts how often it was asked."""

    outputs: Tensors = field(default_factory=lambda: {"image_embeddings": floats([[[[0.0]]]])})
    shown: list[Any] = field(default_factory=list)

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        self.shown.append(inputs["image"])
        return self.outputs


@dataclass
class Decoder(Answers):
    """A Run whose masks are the boxes that it is asked for: the single one whole, of the other three the left half, the
    upper half (which it likes best) and nothing."""

    outputs: Tensors = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        corners = inputs["point_coords"][:, -2:] * (PLANE / FRAME)
        self.asked.append(len(corners))
        planes = np.full((len(corners), 4, PLANE, PLANE), -10, np.float32)
        for masks, ((x1, y1), (x2, y2)) in zip(planes, np.rint(corners).astype(int), strict=True):
            masks[0, y1:y2, x1:x2] = 10
            masks[1, y1:y2, x1 : (x1 + x2) // 2] = 10
            masks[2, y1 : (y1 + y2) // 2, x1:x2] = 5
        iou = np.tile(floats([0.5, 0.6, 0.9, 0.1]), (len(corners), 1))
        return {"low_res_masks": planes, "iou_predictions": iou}


@dataclass
class Runs:
    """The networks of a composition, whose detector finds `boxes`, cat and dog by turns, by falling score."""

    boxes: Any
    encoder: Encoder = field(default_factory=Encoder)
    decoder: Decoder = field(default_factory=Decoder)

    @property
    def by_name(self) -> dict[str, Any]:
        count = len(self.boxes)
        found: dict[str, npt.NDArray[Any]] = {
            "boxes": floats(self.boxes).reshape(-1, 4),
            "labels": np.arange(count) % 2 + 1,
            "scores": np.linspace(0.9, 0.5, count, dtype=np.float32),
        }
        return {
            "detector/detector": Answers(found),
            "segmenter/encoder": self.encoder,
            "segmenter/decoder": self.decoder,
        }


ONE = [[16, 16, 48, 32]]
TWO = [*ONE, [4, 4, 12, 12]]


def answered(bundle: Bundle, runs: Runs, source_hw: tuple[int, int] = (64, 64), **given: Any) -> Prediction[Instance]:
    task = tasks.build(bundle)
    return ask(task, runs.by_name, source_hw, parse(task.defaults, given))


def corners(instance: Instance) -> tuple[float, ...]:
    assert isinstance(instance.mask, Rle)
    return rle.box(instance.mask)


def test_what_the_detector_finds_gets_the_segmenters_mask() -> None:
    cat, dog = answered(composed(), Runs(TWO)).predictions
    assert (cat.label, cat.class_id, cat.score, cat.box, corners(cat)) == ("cat", 1, 0.9, (16, 16, 48, 32), cat.box)
    assert (dog.label, dog.class_id, dog.score, dog.box, corners(dog)) == ("dog", 2, 0.5, (4, 4, 12, 12), dog.box)
    assert (cat.area, dog.area) == (32 * 16, 8 * 8)


def test_boxes_and_masks_are_in_source_pixels() -> None:
    stretched = composed({"detector": detector(), "segmenter": sam()})
    (one,) = answered(stretched, Runs(ONE), (128, 256)).predictions
    assert (one.box, corners(one)) == ((64, 32, 192, 64), (64, 32, 192, 64))


def test_the_encoder_runs_once_and_all_boxes_go_through_the_decoder_together() -> None:
    runs = Runs([[4, 4, 12, 12 + 2 * n] for n in range(10)])
    assert len(answered(composed(), runs).predictions) == 10
    assert (len(runs.encoder.shown), runs.decoder.asked) == (1, [10])


def test_many_boxes_go_through_the_decoder_in_parts() -> None:
    runs = Runs([[4, 4, 12, 12 + 2 * n] for n in range(20)])
    assert [one.area for one in answered(composed(), runs).predictions] == [64 + 16 * n for n in range(20)]
    assert runs.decoder.asked == [16, 4]


def test_the_parts_are_small_where_memory_is_short() -> None:
    task = tasks.build(composed())
    plenty, little = (task.plan(picture((64, 64)), task.defaults, budget) for budget in (sys.maxsize, 1))
    assert (plenty.at_once, little.at_once) == (16, 1)  # type: ignore[attr-defined]
    assert little.bytes_needed < plenty.bytes_needed


def test_a_needle_of_millions_of_pixels_is_foreseen_to_need_more_memory() -> None:
    task, needle = tasks.build(composed()), Decoding.absent((1, 10_000_000))
    assert task.plan(needle, task.defaults, sys.maxsize).bytes_needed > 1_000_000_000


def test_a_tolerance_without_polygons_has_no_effect_and_that_is_said() -> None:
    assert answered(composed(), Runs(ONE), polygon_tolerance=2).notes == (
        "polygon_tolerance: no effect on masks that are no polygons",
    )


def test_where_nothing_is_found_the_encoder_does_not_run() -> None:
    runs = Runs([])
    assert answered(composed(), runs).predictions == ()
    assert runs.encoder.shown == []


def test_only_the_wanted_labels_get_masks() -> None:
    runs = Runs(TWO)
    (one,) = answered(composed(), runs, labels=["dog"]).predictions
    assert (one.label, runs.decoder.asked) == ("dog", [1])


def test_the_best_of_three_masks_is_taken_where_model_json_says_so() -> None:
    (one,) = answered(composed(postprocess={"masks": "best-of-three"}), Runs(ONE)).predictions
    assert corners(one) == (16, 16, 48, 24)


def test_the_mask_threshold_is_a_logit() -> None:
    best = composed(postprocess={"masks": "best-of-three"})
    assert answered(best, Runs(ONE), mask_threshold=6).predictions[0].area == 0
    assert answered(composed(postprocess={"mask_threshold": 11}), Runs(ONE)).predictions[0].area == 0


def test_a_mask_threshold_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="mask_threshold"):
        answered(composed(), Runs(ONE), mask_threshold="inf")


def test_masks_come_in_the_form_that_was_asked_for() -> None:
    (one,) = answered(composed(), Runs(ONE), mask_format="polygon").predictions
    assert one.mask == ((((16.0, 16.0), (48.0, 16.0), (48.0, 32.0), (16.0, 32.0)),),)


def test_defaults_are_the_detectors_unless_model_json_says_otherwise() -> None:
    careful = {"detector": detector(postprocess={"score_threshold": 0.7, "max_predictions": 5}), "segmenter": sam()}
    defaults = tasks.build(composed(careful, postprocess={"max_predictions": 3})).defaults
    assert (defaults.score_threshold, defaults.max_predictions, defaults.mask_format) == (0.7, 3, "rle")


def test_the_detectors_notes_are_passed_on() -> None:
    assert answered(composed(), Runs(ONE), render_factor=4).notes == (
        "render_factor has no effect: the network's input has a fixed size",
    )


def test_an_unknown_label_is_refused_before_a_picture_is_decoded() -> None:
    task = tasks.build(composed())
    with pytest.raises(InvalidParameter, match="did you mean 'dog'"):
        task.plan(picture((8, 8)), parse(task.defaults, {"labels": ["dogs"]}), sys.maxsize)


def test_the_picture_is_decoded_once_as_large_as_both_want_it() -> None:
    large = {"detector": detector(input_shape=[1, 3, 80, 40]), "segmenter": sam()}
    task = tasks.build(composed(large))
    assert task.plan(picture((1000, 2000)), task.defaults, sys.maxsize).decode_hw == (80, 64)


def photo() -> bytes:
    buffer = BytesIO()
    Pillow.new("RGB", (64, 64), (200, 30, 60)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_that_was_encoded_before_is_not_encoded_again() -> None:
    task, runs, memo = tasks.build(composed()), Runs(ONE), Memo(1_000_000)
    answers = []
    for _ in range(2):
        shown = Decoding(photo(), 1_000_000, memo)
        plan = task.plan(shown, task.defaults, sys.maxsize)
        answers.append(task.predict(shown, plan, task.defaults, runs.by_name, Call("test", 60)))
    assert len(runs.encoder.shown) == 1
    assert answers[0] == answers[1]


def test_both_networks_are_shown_the_picture() -> None:
    task, runs = tasks.build(composed()), Runs(ONE)
    shown = Decoding(photo(), 1_000_000)
    task.predict(shown, task.plan(shown, task.defaults, sys.maxsize), task.defaults, runs.by_name, Call("test", 60))
    assert (runs.encoder.shown[0] == [200, 30, 60]).all()


@pytest.mark.parametrize(
    ("parts", "rest", "why"),
    [
        ({"detector": detector()}, {}, "bundles: expected 'detector' and 'segmenter', found"),
        ({"detector": sam(), "segmenter": sam()}, {}, "bundles.detector: expected a bundle for 'detection', but"),
        ({"detector": detector(), "segmenter": detector()}, {}, "bundles.segmenter: expected a SAM, but 'own'"),
        (None, {"task": "detection"}, "family 'detector-sam' is for 'instance-segmentation', found 'detection'"),
        (None, {"labels": ["cat"]}, "labels: the detector's bundle has them"),
        (None, {"postprocess": {"mask": "single"}}, "postprocess.mask: unknown field; did you mean 'masks'"),
    ],
)
def test_a_composition_that_cannot_be_is_refused(parts: Any, rest: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tasks.build(composed(parts, **rest))
    assert why in str(caught.value)
