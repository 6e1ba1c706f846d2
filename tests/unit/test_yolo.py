from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from shared import tasks
from shared.errors import ConfigurationError, ModelOutputMismatch
from shared.manifest import Bundle
from tests.bundles import bundle, detect, floats

LABELS = ["cat", "dog", "cow"]


def own(shape: list[int | None], labels: Sequence[str | None] = LABELS, **postprocess: Any) -> Bundle:
    return bundle("yolo", [("output0", shape)], list(labels), postprocess=postprocess)


def output(rows: Any, *, columns_first: bool = False) -> dict[str, Any]:
    array = floats([rows])
    return {"output0": array.transpose(0, 2, 1) if columns_first else array}


# centre (20, 30), size 8 x 4: corners (16, 28) and (24, 32)
BOX = [20, 30, 8, 4]
CORNERS = (16, 28, 24, 32)


def test_v5_is_a_centre_and_a_size() -> None:
    (found,) = detect(own([1, None, 8]), output([[*BOX, 1, 0, 1, 0]]))
    assert found.box == CORNERS


def test_v5_multiplies_objectness_and_class() -> None:
    (found,) = detect(own([1, None, 8]), output([[*BOX, 0.5, 0.1, 0.8, 0.3]]))
    assert (found.label, found.class_id) == ("dog", 1)
    assert found.score == pytest.approx(0.4)


def test_v5_leaves_out_what_is_no_object() -> None:
    assert detect(own([1, None, 8]), output([[*BOX, 0.2, 0, 1, 0]])) == []


def test_v8_has_no_objectness() -> None:
    (found,) = detect(own([1, 7, None]), output([[*BOX, 0.1, 0.8, 0.3]], columns_first=True))
    assert (found.label, found.box) == ("dog", CORNERS)
    assert found.score == pytest.approx(0.8)


def test_v8_may_come_row_by_row() -> None:
    (found,) = detect(own([1, None, 7]), output([[*BOX, 0.1, 0.8, 0.3], [0] * 7]))
    assert (found.label, found.box) == ("dog", CORNERS)


def test_v8_of_one_class_is_told_from_its_five_columns() -> None:
    (found,) = detect(own([1, 5, None], ["cat"]), output([[*BOX, 0.8]], columns_first=True))
    assert (found.label, found.box) == ("cat", CORNERS)


def test_v8_of_two_classes_may_have_its_columns_first() -> None:
    (found,) = detect(own([1, 6, 8400], ["cat", "dog"]), output([[*BOX, 0.1, 0.8]] * 7, columns_first=True))
    assert (found.label, found.box) == ("dog", CORNERS)


def test_end_to_end_is_corners_score_and_class() -> None:
    (found,) = detect(own([1, 300, 6]), output([[16, 28, 24, 32, 0.5, 2]]))
    assert (found.label, found.score, found.box) == ("cow", 0.5, CORNERS)


def test_end_to_end_has_suppressed_inside_the_graph() -> None:
    assert len(detect(own([1, 300, 6]), output([[16, 28, 24, 32, 0.5, 2]] * 2))) == 2


def test_rows_of_zeros_are_padding() -> None:
    assert detect(own([1, 300, 6]), output([[0] * 6] * 300), score_threshold=0) == []


def test_a_class_that_is_no_number_is_left_out() -> None:
    assert detect(own([1, 300, 6]), output([[16, 28, 24, 32, 0.5, np.nan]])) == []


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ([1, None, 8], [[*BOX, 0.9, 1, 0, 0], [*BOX, 0.8, 1, 0, 0], [*BOX, 0.7, 0, 1, 0]]),
        ([1, None, 7], [[*BOX, 0.9, 0, 0], [*BOX, 0.8, 0, 0], [*BOX, 0, 0.7, 0]]),
    ],
)
def test_overlapping_boxes_are_suppressed_class_by_class(shape: list[int | None], rows: list[list[float]]) -> None:
    assert [found.label for found in detect(own(shape), output(rows))] == ["cat", "dog"]


@pytest.mark.parametrize("row", [[0.25, 0.5, 0.125, 0.25, 0.9, 0, 0], [0.1875, 0.375, 0.3125, 0.625, 0.9, 0]])
def test_normalised_boxes_are_scaled_by_the_tensor(row: list[float]) -> None:
    normalised = {"coordinates": "normalised"}
    wide = bundle(
        "yolo", [("output0", [1, None, None])], list(LABELS), input_shape=[1, 3, 64, 128], postprocess=normalised
    )
    (found,) = detect(wide, output([row]), source_hw=(64, 128))
    assert found.box == (24, 24, 40, 40)


@pytest.mark.parametrize("row", [[*BOX, 0.5, 0, 1, 0], [*BOX, 0, 0.5, 0], [16, 28, 24, 32, 0.5, 1]])
def test_a_score_equal_to_the_threshold_is_kept(row: list[float]) -> None:
    assert len(detect(own([1, None, None]), output([row]), score_threshold=0.5)) == 1


def test_half_precision_outputs_are_read() -> None:
    half = {"output0": np.array([[[*BOX, 1, 0, 1, 0]]], np.float16)}
    (found,) = detect(own([1, None, 8]), half)
    assert found.box == CORNERS


@pytest.mark.parametrize("shape", [[1, 25200, 8], [None, None, 8], [1, None, None]])
def test_the_head_is_found_however_much_is_declared(shape: list[int | None]) -> None:
    (found,) = detect(own(shape), output([[*BOX, 0.5, 0.1, 0.8, 0.3]] * 25200))
    assert found.score == pytest.approx(0.4)


@pytest.mark.parametrize("labels", [["cat"], ["cat", "dog"]])
def test_six_columns_that_fit_two_heads_are_refused_at_load(labels: list[str | None]) -> None:
    with pytest.raises(ConfigurationError, match=r"fits .* and .*: say which in postprocess.head"):
        tasks.build(own([1, None, 6], labels))


def test_six_columns_that_fit_two_heads_are_refused_when_they_come() -> None:
    with pytest.raises(ModelOutputMismatch, match=r"fits end-to-end and v5: say which in postprocess.head"):
        detect(own([1, None, None], ["cat"]), output([[16, 28, 24, 32, 0.5, 0]] * 9))


@pytest.mark.parametrize("shape", [[1, None, 6], [1, None, None]])
def test_the_head_that_is_given_settles_it(shape: list[int | None]) -> None:
    row = [20, 30, 8, 4, 0.5, 1]
    (v5,) = detect(own(shape, ["cat"], head="v5"), output([row] * 9))
    (end_to_end,) = detect(own(shape, ["cat"], head="end-to-end"), output([[16, 28, 24, 32, 0.5, 0]]))
    assert v5 == end_to_end


def test_the_head_that_is_given_tells_two_classes_row_by_row() -> None:
    (found,) = detect(own([1, None, 6], ["cat", "dog"], head="v8"), output([[*BOX, 0.1, 0.8]]))
    assert (found.label, found.box) == ("dog", CORNERS)


@pytest.mark.parametrize("shape", [[1, 84, 8400], [1, 25200, 9], [1, 8, 8400], [7, 8400], [4, 7, 8400]])
def test_a_declared_shape_of_no_head_is_refused_at_load(shape: list[int | None]) -> None:
    with pytest.raises(ConfigurationError, match=r"\[1, N, 8\] \(v5\) .* for 3 labels"):
        tasks.build(own(shape))


def test_labels_that_the_network_does_not_have_are_told_with_the_first_picture() -> None:
    with pytest.raises(ModelOutputMismatch, match="for 3 labels, found"):
        detect(own([1, None, 9]), {"output0": np.zeros((1, 50, 9), np.float32)})


def test_a_declared_shape_of_another_head_is_refused_at_load() -> None:
    with pytest.raises(ConfigurationError, match=r"has shape \[1, 7, 8400\], family 'yolo' expects \[1, N, 8\] \(v5\)"):
        tasks.build(own([1, 7, 8400], head="v5"))


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"postprocess\.head: .*found 'v11'"):
        tasks.build(own([1, 7, 8400], head="v11"))


@pytest.mark.parametrize("shape", [(1, 9, 9), (9, 7), (2, 9, 7), (1, 9, 7, 1)])
def test_an_output_of_no_head_is_named(shape: tuple[int, ...]) -> None:
    free = own([None] * 3)
    with pytest.raises(ModelOutputMismatch, match="output 'output0': family 'yolo' expects shape") as caught:
        detect(free, {"output0": np.zeros(shape, np.float32)})
    expected = "[1, N, 6] (end-to-end) or [1, N, 8] (v5) or [1, 7, N] (v8) or [1, N, 7] (v8) for 3 labels"
    assert caught.value.status == 502
    assert caught.value.figures == {"output": "output0", "expected": expected, "found": list(shape)}


def test_the_best_boxes_are_those_of_a_loop_over_rows() -> None:
    rows = np.random.default_rng(1).uniform(0, 1, (500, 8)).astype(np.float32)
    rows[:, :2] = np.random.default_rng(2).uniform(8, 56, (500, 2))
    rows[:, 2:4] = 3
    slow = []
    for cx, cy, width, height, objectness, *classes in rows.tolist():
        score = objectness * max(classes)
        if score >= 0.7:
            corners = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
            slow.append((score, classes.index(max(classes)), corners))
    slow.sort(reverse=True)
    found = detect(own([1, None, 8], nms=False), output(rows), score_threshold=0.7, max_predictions=1000)
    assert [one.class_id for one in found] == [index for _, index, _ in slow]
    assert [one.box for one in found] == [pytest.approx(corners, abs=2e-3) for _, _, corners in slow]
