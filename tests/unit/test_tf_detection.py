from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shared import tasks
from shared.errors import ConfigurationError, ModelOutputMismatch
from tests.bundles import Output, bundle, detect, floats

LABELS = ["cat", "dog"]
SUPPRESSED: list[Output] = [
    ("detection_boxes", [1, None, 4]),
    ("detection_scores", [1, None]),
    ("detection_classes", [1, None]),
]
COUNTED: list[Output] = [*SUPPRESSED, ("num_detections", [1])]
RAW: list[Output] = [("boxes", [1, None, 4]), ("scores", [1, None, 2])]
TOP, MIDDLE = [0.0, 0.25, 0.5, 0.75], [0.25, 0.25, 0.75, 0.75]


def suppressed(boxes: list[list[float]], scores: list[float], classes: list[float], **rest: Any) -> dict[str, Any]:
    named = {"boxes": floats([boxes]), "scores": floats([scores]), "classes": floats([classes])}
    return {f"detection_{name}": array for name, array in named.items()} | rest


def test_boxes_are_ymin_xmin_ymax_xmax_of_the_tensor() -> None:
    wide = bundle("tf-detection", SUPPRESSED, LABELS, input_shape=[1, 3, 64, 128])
    (found,) = detect(wide, suppressed([TOP], [0.9], [1]), source_hw=(64, 128))
    assert found.box == (32, 0, 96, 32)


def test_class_ids_begin_with_one() -> None:
    found = detect(bundle("tf-detection", SUPPRESSED, LABELS), suppressed([TOP, MIDDLE], [0.9, 0.8], [1, 2]))
    assert [(one.label, one.class_id) for one in found] == [("cat", 1), ("dog", 2)]


def test_class_ids_begin_where_the_model_says() -> None:
    from_zero = bundle("tf-detection", SUPPRESSED, LABELS, postprocess={"first_class_id": 0})
    assert [one.label for one in detect(from_zero, suppressed([TOP], [0.9], [1]))] == ["dog"]


def test_what_lies_behind_the_count_is_padding() -> None:
    outputs = suppressed([TOP, MIDDLE], [0.9, 0.8], [1, 2], num_detections=floats([1]))
    assert [one.label for one in detect(bundle("tf-detection", COUNTED, LABELS), outputs)] == ["cat"]


def test_a_count_above_the_rows_is_all_rows() -> None:
    outputs = suppressed([TOP, MIDDLE], [0.9, 0.8], [1, 2], num_detections=floats([100]))
    assert len(detect(bundle("tf-detection", COUNTED, LABELS), outputs)) == 2


def test_a_graph_that_gives_classes_has_suppressed() -> None:
    outputs = suppressed([TOP, TOP], [0.9, 0.8], [1, 1])
    assert len(detect(bundle("tf-detection", SUPPRESSED, LABELS), outputs)) == 2


def test_a_score_for_every_class_is_a_candidate_for_every_class() -> None:
    found = detect(bundle("tf-detection", RAW, LABELS), {"boxes": floats([[TOP]]), "scores": floats([[[0.6, 0.9]]])})
    assert [(one.label, one.class_id, round(one.score, 3)) for one in found] == [("dog", 2, 0.9), ("cat", 1, 0.6)]


def test_raw_boxes_are_suppressed_here() -> None:
    outputs = {"boxes": floats([[TOP, TOP]]), "scores": floats([[[0.6, 0.0], [0.9, 0.0]]])}
    assert [round(one.score, 3) for one in detect(bundle("tf-detection", RAW, LABELS), outputs)] == [0.9]


@pytest.mark.parametrize(
    ("declared", "outputs", "output", "expected"),
    [
        (RAW, {"boxes": np.zeros((1, 5, 3)), "scores": np.zeros((1, 5, 2))}, "boxes", "[1, N, 4]"),
        (RAW, {"boxes": np.zeros((5, 4)), "scores": np.zeros((1, 5, 2))}, "boxes", "[1, N, 4]"),
        (
            RAW,
            {"boxes": np.zeros((1, 5, 4)), "scores": np.zeros((1, 5, 3))},
            "scores",
            "[1, 5, 2], a column for each label",
        ),
        (SUPPRESSED, suppressed([TOP], [0.9, 0.8], [1]), "detection_scores", "[1, 1]"),
        (SUPPRESSED, suppressed([TOP], [0.9], [1, 2]), "detection_classes", "[1, 1]"),
        (COUNTED, suppressed([TOP], [0.9], [1], num_detections=floats([1, 1])), "num_detections", "[1]"),
    ],
)
def test_an_output_of_another_shape_is_named(
    declared: list[Output], outputs: dict[str, Any], output: str, expected: str
) -> None:
    with pytest.raises(ModelOutputMismatch, match=output) as caught:
        detect(bundle("tf-detection", declared, LABELS), outputs)
    found = list(np.shape(outputs[output]))
    assert caught.value.figures == {"output": output, "expected": expected, "found": found}


def test_a_count_without_classes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a count without classes"):
        tasks.build(bundle("tf-detection", [*RAW, ("num_detections", [1])], LABELS))
