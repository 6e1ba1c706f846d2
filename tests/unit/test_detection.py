from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import tasks
from shared.errors import ConfigurationError, InvalidParameter, ModelOutputMismatch, OutOfMemory
from shared.parameters import DetectionParameters, parse
from shared.tasks.detection import Candidates, best_class, every_class, select
from tests.bundles import Cramped, Output, ask, bundle, detect, floats, picture

if TYPE_CHECKING:
    pass

BOXES = [[[0.0, 0.0, 8.0, 8.0], [16.0, 16.0, 24.0, 24.0], [32.0, 32.0, 40.0, 40.0]]]
OUTPUTS: list[Output] = [("boxes", [1, None, 4]), ("labels", [1, None]), ("scores", [1, None])]
LABELS = [None, "cat", "dog"]


def own(**rest: Any) -> Any:
    return bundle("torchvision-detection", OUTPUTS, LABELS, **rest)


def answer(labels: list[int], scores: list[float], boxes: list[list[float]] | None = None) -> dict[str, Any]:
    rows = BOXES[0][: len(labels)] if boxes is None else boxes
    return {"boxes": floats(rows).reshape(1, -1, 4), "labels": np.array([labels], np.int64), "scores": floats([scores])}


def candidates(boxes: Any, scores: Any, classes: Any) -> Candidates:
    return Candidates(floats(boxes).reshape(-1, 4), floats(scores), np.array(classes, np.int64))


def wanted(score: float = 0.0, iou: float = 0.5, most: int = 100) -> DetectionParameters:
    return DetectionParameters(score, iou, most)


ONE = [0, 0, 4, 4]


def test_predictions_come_by_falling_score() -> None:
    assert [found.score for found in detect(own(), answer([1, 1, 1], [0.5, 0.9, 0.7]))] == [0.9, 0.7, 0.5]


def test_what_is_below_the_threshold_is_left_out() -> None:
    assert len(detect(own(), answer([1, 1, 1], [0.5, 0.9, 0.4]), score_threshold=0.5)) == 2


def test_the_models_own_threshold_holds_when_none_is_given() -> None:
    picky = own(postprocess={"score_threshold": 0.8})
    assert len(detect(picky, answer([1, 1, 1], [0.5, 0.9, 0.4]))) == 1


def test_no_more_come_than_were_asked_for() -> None:
    assert [f.score for f in detect(own(), answer([1, 1, 1], [0.5, 0.75, 0.25]), max_predictions=1)] == [0.75]


def test_only_the_wanted_labels_come() -> None:
    assert [found.label for found in detect(own(), answer([1, 2, 1], [0.5, 0.5, 0.5]), labels=["dog"])] == ["dog"]


def test_a_wanted_label_makes_room_for_itself() -> None:
    found = detect(own(), answer([1, 1, 2], [0.9, 0.8, 0.5]), labels=["dog"], max_predictions=1)
    assert [one.label for one in found] == ["dog"]


def test_an_unknown_label_is_refused_with_the_nearest_one() -> None:
    task = tasks.build(own())
    with pytest.raises(InvalidParameter, match="did you mean 'dog'") as caught:
        task.plan(picture((8, 8)), parse(task.defaults, {"labels": ["dogs"]}), sys.maxsize)
    assert caught.value.figures == {"parameter": "labels"}


def test_a_class_without_a_label_is_named_by_its_number() -> None:
    (found,) = detect(own(), answer([7], [0.5]))
    assert (found.label, found.class_id) == ("7", 7)


def test_the_first_class_id_is_added_to_the_index() -> None:
    shifted = own(postprocess={"first_class_id": 100})
    assert [found.class_id for found in detect(shifted, answer([1], [0.5]))] == [101]


def test_boxes_are_clipped_to_the_picture() -> None:
    (found,) = detect(own(), answer([1], [0.5], [[-5, -5, 90, 20]]))
    assert found.box == (0, 0, 64, 20)


def test_a_box_that_lies_in_the_padding_alone_is_left_out() -> None:
    letterboxed = own(preprocess={"resize": "letterbox"})
    assert detect(letterboxed, answer([1], [0.5], [[0, 0, 60, 10]]), source_hw=(32, 64)) == []


def test_no_candidates_are_no_predictions() -> None:
    assert detect(own(), answer([], [])) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e30])
def test_a_box_that_is_nowhere_is_left_out(bad: float) -> None:
    assert detect(own(), answer([1], [0.5], [[0, 0, bad, 8]])) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_left_out(bad: float) -> None:
    assert detect(own(), answer([1], [bad]), score_threshold=0) == []


def test_a_graph_that_suppresses_is_not_suppressed_again() -> None:
    assert len(detect(own(), answer([1, 1], [0.9, 0.8], [[0, 0, 8, 8]] * 2))) == 2


def test_nms_true_suppresses_whatever_the_family_says() -> None:
    strict = own(postprocess={"nms": True})
    assert len(detect(strict, answer([1, 1], [0.9, 0.8], [[0, 0, 8, 8]] * 2))) == 1


def test_nms_is_inside_a_class() -> None:
    kept = select(candidates([ONE, ONE, ONE], [0.9, 0.8, 0.7], [0, 1, 0]), wanted(), None, nms=True)
    assert (kept.scores == floats([0.9, 0.8])).all()


def test_a_limit_counts_what_is_left_after_suppression() -> None:
    other = [20, 20, 24, 24]
    kept = select(candidates([ONE, ONE, other], [0.9, 0.8, 0.7], [0, 0, 0]), wanted(most=2), None, nms=True)
    assert (kept.scores == floats([0.9, 0.7])).all()


def test_an_unwanted_class_does_not_suppress() -> None:
    kept = select(candidates([ONE, ONE], [0.9, 0.8], [0, 1]), wanted(), np.array([1]), nms=True)
    assert kept.classes.tolist() == [1]


def test_a_score_equal_to_the_threshold_is_kept() -> None:
    assert len(select(candidates([ONE], [0.5], [0]), wanted(score=0.5), None, nms=True).scores) == 1


@given(st.permutations(range(5)))
def test_equal_scores_are_answered_in_one_order(order: list[int]) -> None:
    kept = select(candidates([ONE] * 5, [0.5] * 5, order), wanted(), None, nms=True)
    assert kept.classes.tolist() == [0, 1, 2, 3, 4]


def test_a_hundred_thousand_candidates_take_less_than_two_seconds() -> None:
    corners = np.random.default_rng(0).uniform(0, 2000, (100_000, 2)).astype(np.float32)
    crowd = np.concatenate([corners, corners + 10], axis=1)
    scores = np.linspace(0, 1, 100_000, dtype=np.float32)
    begin = perf_counter()
    select(Candidates(crowd, scores, np.zeros(100_000, np.int64)), wanted(most=1000), None, nms=True)
    assert perf_counter() - begin < 2


def test_the_best_class_of_a_box_decides() -> None:
    found = best_class(floats([ONE, ONE]), floats([[0.1, 0.6, 0.3], [0.2, 0.1, 0.1]]), 0.5)
    assert found.classes.tolist() == [1]
    assert found.scores == pytest.approx([0.6])


def test_the_first_of_two_equally_good_classes_wins() -> None:
    assert best_class(floats([ONE]), floats([[0.1, 0.6, 0.6]]), 0.5).classes.tolist() == [1]


def test_every_class_that_passes_is_a_candidate() -> None:
    found = every_class(floats([ONE, ONE]), floats([[0.9, 0.6, 0.3], [0.2, 0.1, 0.5]]), 0.5)
    assert found.classes.tolist() == [0, 1, 2]
    assert found.scores == pytest.approx([0.9, 0.6, 0.5])


def test_no_boxes_have_no_best_class() -> None:
    assert len(best_class(floats([]).reshape(0, 4), floats([]).reshape(0, 3), 0.5).scores) == 0


def test_a_missing_output_is_named() -> None:
    found = answer([1], [0.5])
    del found["scores"]
    with pytest.raises(ModelOutputMismatch, match="output 'scores' is missing; found") as caught:
        detect(own(), found)
    assert caught.value.status == 502


@pytest.mark.parametrize(
    ("postprocess", "names"),
    [
        ({"score_treshold": 0.5}, "postprocess.score_treshold: unknown field; did you mean 'score_threshold'"),
        ({"score_threshold": 2}, "postprocess.score_threshold"),
        ({"max_predictions": 0}, "postprocess.max_predictions"),
        ({"nms": "yes"}, "postprocess.nms"),
    ],
)
def test_a_wrong_option_is_named(postprocess: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        tasks.build(own(postprocess=postprocess))


def test_an_output_may_have_any_name_when_its_role_is_given() -> None:
    named: list[Output] = [("2769", [None, 4], "boxes"), ("2747", [None], "labels"), ("2746", [None], "scores")]
    answered = {"2769": floats([ONE]), "2747": np.array([1]), "2746": floats([0.5])}
    assert len(detect(bundle("torchvision-detection", named, LABELS), answered)) == 1


def test_tensorflows_suffix_belongs_to_no_name() -> None:
    named: list[Output] = [("boxes:0", [None, 4]), ("labels:0", [None]), ("scores:0", [None])]
    answered = {"boxes:0": floats([ONE]), "labels:0": np.array([1]), "scores:0": floats([0.5])}
    assert len(detect(bundle("torchvision-detection", named, LABELS), answered)) == 1


def test_a_role_that_no_output_plays_is_named() -> None:
    with pytest.raises(ConfigurationError, match="needs an output with role 'labels'"):
        tasks.build(bundle("torchvision-detection", [("boxes", [None, 4]), ("scores", [None])], LABELS))


def test_a_preprocess_that_contradicts_the_network_is_found_at_load() -> None:
    with pytest.raises(ConfigurationError, match=r"preprocess\.size"):
        tasks.build(own(preprocess={"size": [32, 32]}))


def test_an_unknown_family_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match="family: unknown 'yolov8'; did you mean 'yolo'"):
        tasks.build(bundle("yolov8", OUTPUTS, LABELS))


def test_a_family_by_dotted_path_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="cannot load 'not_there:task'"):
        tasks.build(bundle("not_there:task", OUTPUTS, LABELS))


def test_only_as_many_pixels_are_decoded_as_the_tensor_has() -> None:
    task = tasks.build(own(preprocess={"resize": "letterbox"}))
    assert task.plan(picture((3000, 4000)), task.defaults, sys.maxsize).decode_hw == (48, 64)


WHOLE: list[Output] = [("boxes", [1, None, 4]), ("scores", [1, None, 1])]
FREE: dict[str, Any] = {"input_shape": [1, 3, None, None], "preprocess": {"resize": "long-side", "side": 64}}


def test_a_network_of_free_size_is_given_less_where_memory_is_short() -> None:
    task = tasks.build(bundle("tf-detection", WHOLE, ["cat"], **FREE))
    run = Cramped(pixels=20 * 40)
    prediction = ask(task, {"detector": run}, (100, 200))
    assert run.asked == [(32, 64), (16, 16)]
    assert [found.box for found in prediction.predictions] == [(100.0, 0.0, 200.0, 100.0)]
    assert prediction.notes == ("memory was short: the model was run with render factor 1",)


def test_memory_that_is_short_for_a_quarter_too_is_a_failure() -> None:
    task = tasks.build(bundle("tf-detection", WHOLE, ["cat"], **FREE))
    with pytest.raises(OutOfMemory):
        ask(task, {"detector": Cramped(pixels=1)}, (100, 200))
