from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared import tasks
from shared.errors import ConfigurationError, DeadlineExceeded, InvalidParameter, ModelOutputMismatch
from shared.manifest import Bundle
from shared.masks import rle
from shared.masks.placed import Placed
from shared.predictions import Instance, Rle
from tests.bundles import Answers, Output, ask, bundle, floats, picture, predicted
from tests.golden_masks import ROI_SOURCE, probabilities
from tests.unit.test_masks_rle import whole

DATA = Path(__file__).parents[1] / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "masks.json").read_text(encoding="utf-8"))["roi"]
HILLS = probabilities(np.load(DATA / "masks.npz")["roi"])
TORCHVISION: list[Output] = [
    ("boxes", [None, 4]), ("labels", [None]), ("scores", [None]), ("masks", [None, 1, None, None]),
]  # fmt: skip
DETECTRON2: list[Output] = [
    ("pred_boxes", [None, 4]), ("pred_classes", [None]), ("scores", [None]), ("pred_masks", [None, 1, 28, 28]),
]  # fmt: skip
LABELS = [None, "cat", "dog"]
FULL, EMPTY = np.ones((28, 28), np.float32), np.zeros((28, 28), np.float32)
LEFT = np.where(np.arange(28) < 14, FULL, EMPTY)
BOX = [16, 8, 48, 40]


def own(outputs: list[Output] = TORCHVISION, labels: list[str | None] = LABELS, **rest: Any) -> Bundle:
    rest = {"input_shape": [3, None, None], "preprocess": {"layout": "CHW"}} | rest
    return bundle("mask-rcnn", outputs, labels, task="instance-segmentation", **rest)


def answer(masks: Any, boxes: Any = (BOX,), labels: Any = (1,), scores: Any = (0.9,)) -> dict[str, Any]:
    return {
        "boxes": floats(boxes).reshape(-1, 4),
        "labels": np.array(labels, np.int64),
        "scores": floats(scores),
        "masks": floats(masks),
    }


def found(
    bundle: Bundle, outputs: dict[str, Any], source_hw: tuple[int, int] = (64, 64), **given: Any
) -> list[Instance]:
    return list(predicted(bundle, outputs, source_hw, **given).predictions)


def placed(instance: Instance) -> Placed:
    assert isinstance(instance.mask, Rle)
    return rle.decoded(instance.mask)


def corners(instance: Instance) -> tuple[int, int, int, int]:
    """The tight box of the mask."""
    mask = placed(instance)
    height, width = mask.bits.shape
    return mask.left, mask.top, mask.left + width, mask.top + height


def assert_judged(instance: Instance, judged: dict[str, Any]) -> None:
    expected = whole(rle.decoded(Rle(tuple(judged["size"]), judged["counts"])))
    assert np.count_nonzero(whole(placed(instance)) != expected) <= 2
    assert instance.area == pytest.approx(judged["area"], abs=2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
def test_masks_are_placed_as_the_reference_implementation_does(rule: str, case: dict[str, Any]) -> None:
    model = own(postprocess={"paste": rule})
    (instance,) = found(model, answer([[HILLS]], [case["in"]]), ROI_SOURCE)
    assert_judged(instance, case[rule])


def test_an_instance_has_the_boxs_label_score_and_place() -> None:
    (one,) = found(own(), answer([[FULL]], labels=[2]))
    assert (one.label, one.class_id, one.score, one.box) == ("dog", 2, 0.9, (16, 8, 48, 40))


def test_a_mask_lies_in_the_boxs_part_that_it_says() -> None:
    (one,) = found(own(), answer([[LEFT]]))
    assert corners(one) == pytest.approx((16, 8, 32, 40), abs=1)
    assert one.area == pytest.approx(16 * 32, rel=0.15)


def test_each_mask_stays_with_its_box_when_they_are_put_in_order() -> None:
    boxes = [[0, 0, 16, 16], [32, 0, 48, 16], [0, 32, 16, 48]]
    outputs = answer([[FULL], [LEFT], [EMPTY]], boxes, [1, 1, 1], [0.5, 0.9, 0.7])
    found_ = found(own(), outputs)
    assert [one.score for one in found_] == [0.9, 0.7, 0.5]
    assert [one.area for one in found_] == pytest.approx([128, 0, 256], rel=0.15)


def test_an_empty_mask_is_an_instance_without_area() -> None:
    (one,) = found(own(), answer([[EMPTY]]))
    assert (one.area, rle.area(one.mask) if isinstance(one.mask, Rle) else None) == (0, 0)


def test_no_instances_are_no_predictions() -> None:
    assert found(own(), answer(np.zeros((0, 1, 28, 28)), (), (), ())) == []


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 1, 28, 28)])
def test_masks_may_lack_the_axis_of_one_channel(shape: tuple[int, ...]) -> None:
    (one,) = found(own([*TORCHVISION[:3], ("masks", [None] * len(shape))]), answer(LEFT.reshape(shape)))
    assert corners(one) == pytest.approx((16, 8, 32, 40), abs=1)


@pytest.mark.parametrize("shape", [(1, 2, 28, 28), (1, 2, 1, 28, 28)])
def test_every_output_may_have_a_batch_axis(shape: tuple[int, ...]) -> None:
    outputs = answer(np.stack([LEFT, FULL]).reshape(shape), [BOX, BOX], [1, 2], [0.9, 0.8])
    batched = {name: array if name == "masks" else array[None] for name, array in outputs.items()}
    axes: list[Output] = [("boxes", [1, None, 4]), ("labels", [1, None]), ("scores", [1, None])]
    one, other = found(own([*axes, ("masks", [None] * len(shape))]), batched)
    assert one.area * 2 == pytest.approx(other.area, rel=0.1)


def test_of_masks_for_every_class_the_objects_own_is_taken() -> None:
    (one,) = found(own(), answer([[EMPTY, EMPTY, LEFT]], labels=[2]))
    assert corners(one) == pytest.approx((16, 8, 32, 40), abs=1)


def test_detectron2_is_known_by_its_names_and_counts_classes_from_zero() -> None:
    names = ("pred_boxes", "pred_classes", "scores", "pred_masks")
    outputs = dict(zip(names, answer([[HILLS]], [CASES[0]["in"]], [0]).values(), strict=True))
    (one,) = found(own(DETECTRON2, ["cat", "dog"]), outputs, ROI_SOURCE)
    assert (one.label, one.class_id) == ("cat", 0)
    assert_judged(one, CASES[0]["detectron2"])


def pasted(hw: tuple[int, int], part: tuple[int, int, int, int]) -> Any:
    plane = np.zeros(hw, np.float32)
    x1, y1, x2, y2 = part
    plane[y1:y2, x1:x2] = 1
    return [[plane]]


def test_a_mask_over_the_whole_tensor_is_taken_as_it_is() -> None:
    (one,) = found(own(), answer(pasted((64, 96), (16, 8, 30, 41))), (64, 96))
    assert (corners(one), one.area) == ((16, 8, 30, 41), 14 * 33)


def test_a_mask_over_the_whole_tensor_is_enlarged_to_the_source() -> None:
    half = own(preprocess={"layout": "CHW", "resize": "long-side", "side": 48})
    (one,) = found(half, answer(pasted((32, 48), (8, 4, 24, 20)), [[8, 4, 24, 20]]), (64, 96))
    assert (corners(one), one.box) == ((16, 8, 48, 40), (16, 8, 48, 40))


def test_of_a_mask_over_the_whole_tensor_the_padding_is_cut_off() -> None:
    padded = own(preprocess={"layout": "CHW", "resize": "long-side", "side": 48, "multiple_of": 48})
    (one,) = found(padded, answer(pasted((48, 48), (0, 0, 48, 48)), [[0, 0, 48, 48]]), (64, 96))
    assert corners(one) == (0, 0, 96, 64)


def test_a_mask_keeps_to_where_its_box_lay_in_the_padding() -> None:
    padded = own(preprocess={"layout": "CHW", "multiple_of": 64})
    (one,) = found(padded, answer([[np.tile(LEFT[:1].T, 28)]], [[0, 0, 64, 64]]), (40, 64))
    assert [one.box, corners(one)] == [(0, 0, 64, 40), pytest.approx((0, 0, 64, 32), abs=1)]


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 1.0), (0.2, 0.5), (0.8, 0.25), (1.0, 0.0)])
def test_the_mask_threshold_of_the_request_decides(threshold: float, share: float) -> None:
    steps = np.where(np.arange(28) < 7, 0.9, np.where(np.arange(28) < 14, 0.5, 0.1)).astype(np.float32)
    (one,) = found(own(), answer([[np.tile(steps, (28, 1))]]), mask_threshold=threshold)
    assert one.area == pytest.approx(share * 32 * 32, rel=0.15)


def test_the_models_own_mask_threshold_holds_when_none_is_given() -> None:
    (one,) = found(own(postprocess={"mask_threshold": 0.95}), answer([[FULL * np.float32(0.9)]]))
    assert one.area == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.5, "nan"])
def test_a_mask_threshold_that_is_no_probability_is_refused(threshold: Any) -> None:
    with pytest.raises(InvalidParameter, match="mask_threshold: expected"):
        found(own(), answer([[FULL]]), mask_threshold=threshold)


def test_polygons_pngs_and_nothing_are_given_where_they_are_asked_for() -> None:
    asked = {form: found(own(), answer([[FULL]]), mask_format=form)[0] for form in ("polygon", "png", "none")}
    assert asked["none"].mask is None
    assert isinstance(asked["png"].mask, bytes)
    assert asked["png"].mask.startswith(b"\x89PNG")
    assert isinstance(asked["polygon"].mask, tuple)
    assert len(asked["polygon"].mask[0][0]) >= 4
    assert len({one.area for one in asked.values()}) == 1


def test_masks_of_another_number_than_boxes_are_told() -> None:
    with pytest.raises(ModelOutputMismatch, match=r"output 'masks': .* expects shape \[1, 1, M, M\]") as caught:
        found(own(), answer([[FULL], [FULL]]))
    assert caught.value.figures["found"] == [2, 1, 28, 28]


@pytest.mark.parametrize("shape", [(1,), (1, 28), (1, 1, 28, 30), (1, 1, 1, 28, 28), (1, 1, 0, 0), (1, 2, 64, 64)])
def test_masks_that_are_neither_square_nor_the_tensors_are_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelOutputMismatch, match="output 'masks'"):
        found(own([*TORCHVISION[:3], ("masks", [None] * len(shape))]), answer(np.zeros(shape), labels=[2]))


def test_a_class_without_a_mask_of_its_own_is_told() -> None:
    with pytest.raises(ModelOutputMismatch, match="classes, M, M"):
        found(own(), answer([[FULL, FULL]], labels=[2]))


def test_a_missing_masks_output_is_named_with_the_usual_names() -> None:
    with pytest.raises(ConfigurationError, match=r"role 'masks' \(or named masks, pred_masks, mask_fcn_probs\)"):
        tasks.build(own(TORCHVISION[:3]))


def test_a_bundle_for_detection_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="family 'mask-rcnn' is for 'instance-segmentation', found 'detection'"
    ):
        tasks.build(bundle("mask-rcnn", TORCHVISION, LABELS))


def test_an_unknown_rule_to_paste_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"postprocess\.paste"):
        tasks.build(own(postprocess={"paste": "mmdet"}))


def test_masks_stop_where_the_time_is_over() -> None:
    many = answer([[FULL]] * 5, [BOX] * 5, [1] * 5, [0.9] * 5)
    task = tasks.build(own())
    with pytest.raises(DeadlineExceeded):
        ask(task, {"detector": Answers(many)}, (64, 64), timeout_s=0)


def test_the_memory_of_one_mask_is_foreseen() -> None:
    task = tasks.build(own(input_shape=[3, 64, 64]))
    assert task.plan(picture((3000, 4000)), task.defaults, 1 << 40).bytes_needed >= 12_000_000
