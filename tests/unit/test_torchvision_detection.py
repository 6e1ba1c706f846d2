from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shared.errors import ModelOutputMismatch
from tests.bundles import bundle, detect, floats

OWN = bundle(
    "torchvision-detection",
    [("boxes", [None, 4]), ("labels", [None]), ("scores", [None])],
    [None, "cat", "dog"],
    input_shape=[3, None, None],
    preprocess={"layout": "CHW", "scale": 1 / 255},
)


def output(boxes: Any, labels: Any, scores: Any) -> dict[str, Any]:
    return {
        "boxes": floats(boxes).reshape(-1, 4),
        "labels": np.array(labels, np.int64),
        "scores": floats(scores),
    }


def test_boxes_are_corners_in_tensor_pixels() -> None:
    (found,) = detect(OWN, output([[1, 2, 30, 40]], [1], [0.5]), source_hw=(48, 64))
    assert found.box == (1, 2, 30, 40)


def test_the_first_label_is_the_background() -> None:
    found = detect(OWN, output([[0, 0, 9, 9]] * 2, [1, 2], [0.75, 0.5]))
    assert [(one.label, one.class_id) for one in found] == [("cat", 1), ("dog", 2)]


def test_a_batch_axis_of_one_is_taken_too() -> None:
    batched = {name: array[None] for name, array in output([[0, 0, 9, 9]], [2], [0.5]).items()}
    assert [one.label for one in detect(OWN, batched)] == ["dog"]


@pytest.mark.parametrize("axes", [(), (None,)])
def test_nothing_found_is_an_empty_answer(axes: tuple[None, ...]) -> None:
    nothing = output([], [], [])
    assert detect(OWN, {name: array[axes] if axes else array for name, array in nothing.items()}) == []


def test_overlapping_boxes_have_been_suppressed_inside() -> None:
    assert len(detect(OWN, output([[0, 0, 9, 9]] * 2, [1, 1], [0.75, 0.5]))) == 2


@pytest.mark.parametrize(
    ("role", "shape", "expected"),
    [
        ("boxes", (3, 5), "[N, 4] or [1, N, 4]"),
        ("boxes", (12,), "[N, 4] or [1, N, 4]"),
        ("boxes", (2, 3, 4), "[N, 4] or [1, N, 4]"),
        ("labels", (2,), "[3]"),
        ("labels", (1, 3), "[3]"),
        ("scores", (3, 3), "[3]"),
    ],
)
def test_an_output_of_another_shape_is_named(role: str, shape: tuple[int, ...], expected: str) -> None:
    outputs = output([[0, 0, 9, 9]] * 3, [1, 1, 1], [0.5] * 3) | {role: np.zeros(shape, np.float32)}
    with pytest.raises(ModelOutputMismatch) as caught:
        detect(OWN, outputs)
    assert caught.value.status == 502
    assert caught.value.figures == {"output": role, "expected": expected, "found": list(shape)}
