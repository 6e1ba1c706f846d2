from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared import tasks
from shared.errors import ConfigurationError, ModelOutputMismatch
from shared.manifest import Bundle
from shared.tasks.detr import sigmoid, softmax
from tests.bundles import Output, bundle, detect, floats

LABELS = ["cat", "dog"]
BOX = [0.25, 0.5, 0.25, 0.125]


def own(input_shape: list[int | None] | None = None, **postprocess: Any) -> Bundle:
    outputs: list[Output] = [("logits", [1, None, None]), ("pred_boxes", [1, None, 4])]
    return bundle("detr", outputs, list(LABELS), input_shape=input_shape, postprocess=postprocess)


def output(logits: list[list[float]], boxes: list[list[float]] | None = None) -> dict[str, Any]:
    return {"logits": floats([logits]), "pred_boxes": floats([boxes or [BOX] * len(logits)])}


def test_boxes_are_centre_and_size_of_the_tensor() -> None:
    (found,) = detect(own([1, 3, 64, 128]), output([[0, 9, 0]]), source_hw=(64, 128))
    assert found.box == (16, 28, 48, 36)


def test_one_column_more_than_labels_is_softmax() -> None:
    (found,) = detect(own(), output([[log(1), log(6), log(1)]]))
    assert (found.label, found.class_id) == ("dog", 1)
    assert found.score == pytest.approx(0.75)


def test_the_last_column_of_softmax_is_no_object() -> None:
    assert detect(own(), output([[0, 0, 9]])) == []


def test_softmax_gives_a_query_its_best_class_alone() -> None:
    assert [one.label for one in detect(own(), output([[log(4), log(5), log(1)]]))] == ["dog"]


def test_as_many_columns_as_labels_is_sigmoid() -> None:
    (found,) = detect(own(), output([[-9, log(3)]]))
    assert found.score == pytest.approx(0.75)


def test_sigmoid_gives_a_query_every_class_that_passes() -> None:
    found = detect(own(), output([[log(2), log(3)], [log(4), -9]]))
    assert [(one.label, round(one.score, 4)) for one in found] == [("cat", 0.8), ("dog", 0.75), ("cat", 0.6667)]


def test_the_best_pairs_are_those_of_a_loop_over_queries_and_classes() -> None:
    logits = np.random.default_rng(5).normal(0, 3, (50, 2)).astype(np.float32)
    boxes = np.random.default_rng(6).uniform(0.2, 0.4, (50, 4)).astype(np.float32)
    pairs = [(1 / (1 + exp(-logits[q, c])), c, q) for q in range(50) for c in range(2)]
    best = sorted(pairs, reverse=True)[:30]
    found = detect(own(), output(logits.tolist(), boxes.tolist()), score_threshold=0, max_predictions=30)
    assert [one.class_id for one in found] == [c for _, c, _ in best]
    assert [one.score for one in found] == pytest.approx([score for score, _, _ in best], abs=1e-5)
    left = [(boxes[q, 0] - boxes[q, 2] / 2) * 64 for _, _, q in best]
    assert [one.box[0] for one in found] == pytest.approx(left, abs=2e-3)


def test_overlapping_queries_stay() -> None:
    assert len(detect(own(), output([[0, 9, 0]] * 3))) == 3


def test_nms_true_drops_overlapping_queries() -> None:
    assert len(detect(own(nms=True), output([[0, 9, 0]] * 3))) == 1


def test_facebooks_ninety_one_labels_have_ninety_two_columns() -> None:
    labels: list[str | None] = [None] * 91
    labels[17] = "cat"
    coco = bundle("detr", [("pred_logits", [1, 100, 92]), ("pred_boxes", [1, 100, 4])], labels)
    logits = np.zeros((1, 100, 92), np.float32)
    logits[0, :, 91], logits[0, 5, 17] = 20, 30
    (found,) = detect(coco, {"pred_logits": logits, "pred_boxes": np.full((1, 100, 4), 0.5, np.float32)})
    assert (found.label, found.class_id, found.box) == ("cat", 17, (16, 16, 48, 48))


def test_the_activation_that_is_given_holds() -> None:
    with pytest.raises(ModelOutputMismatch, match=r"expects shape \[1, 1, 2\] \(sigmoid\) for 2 labels"):
        detect(own(activation="sigmoid"), output([[0, 9, 0]]))


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"postprocess\.activation"):
        tasks.build(own(activation="relu"))


@pytest.mark.parametrize("columns", [1, 4, 92])
def test_another_number_of_columns_is_named(columns: int) -> None:
    with pytest.raises(ModelOutputMismatch) as caught:
        detect(own(), {"logits": np.zeros((1, 9, columns), np.float32), "pred_boxes": np.zeros((1, 9, 4), np.float32)})
    expected = "[1, 9, 3] (softmax) or [1, 9, 2] (sigmoid) for 2 labels"
    assert caught.value.status == 502
    assert caught.value.figures == {"output": "logits", "expected": expected, "found": [1, 9, columns]}


@pytest.mark.parametrize("shape", [(1, 9, 5), (9, 4), (2, 9, 4)])
def test_boxes_of_another_shape_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelOutputMismatch) as caught:
        detect(own(), {"logits": np.zeros((1, 9, 3), np.float32), "pred_boxes": np.zeros(shape, np.float32)})
    assert caught.value.figures == {"output": "pred_boxes", "expected": "[1, N, 4]", "found": list(shape)}


def test_other_numbers_of_queries_and_boxes_are_named() -> None:
    with pytest.raises(ModelOutputMismatch, match="output 'logits'"):
        detect(own(), output([[0, 9, 0]], [BOX, BOX]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_query_that_is_no_number_is_left_out(bad: float) -> None:
    assert len(detect(own(), output([[bad, bad, bad], [0, 9, 0]]))) == 1


def test_half_precision_logits_do_not_overflow() -> None:
    half = {"logits": np.array([[[-60000, 60000, 0]]], np.float16), "pred_boxes": np.array([[BOX]], np.float16)}
    (found,) = detect(own(), half)
    assert found.score == 1


logits = arrays.arrays(np.float32, (3, 4), elements=st.floats(-1e4, 1e4, width=32))


@given(logits)
def test_softmax_adds_up_to_one_for_any_logits(values: np.ndarray) -> None:
    assert softmax(values).sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)


@given(logits)
def test_sigmoid_of_the_opposite_is_the_rest_for_any_logits(values: np.ndarray) -> None:
    assert sigmoid(values) + sigmoid(-values) == pytest.approx(np.ones((3, 4)), abs=1e-5)
