from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pytest

from shared import tasks
from shared.errors import ConfigurationError, ModelOutputMismatch
from shared.manifest import Bundle
from tests.bundles import bundle, detect, floats

LABELS = ["cat", "dog"]
# A tensor of 64 x 64 has 8 x 8, 4 x 4 and 2 x 2 cells.
CELLS = 64 + 16 + 4


def own(**postprocess: Any) -> Bundle:
    return bundle("yolox", [("output", [1, None, 7])], list(LABELS), postprocess=postprocess)


def output(rows: dict[int, list[float]], cells: int = CELLS) -> dict[str, Any]:
    array = np.zeros((1, cells, 7), np.float32)
    for place, row in rows.items():
        array[0, place] = row
    return {"output": array}


def test_a_centre_is_in_its_cell() -> None:
    # Row 2, column 3 of stride 8: centre (3.5, 2.5) * 8 = (28, 20), size 8 x 16.
    (found,) = detect(own(), output({2 * 8 + 3: [0.5, 0.5, 0, log(2), 1, 0, 1]}))
    assert found.box == pytest.approx((24, 12, 32, 28))


def test_the_second_level_follows_the_first() -> None:
    # Row 1, column 2 of stride 16: centre (2.5, 1.5) * 16 = (40, 24).
    (found,) = detect(own(), output({64 + 1 * 4 + 2: [0.5, 0.5, 0, 0, 1, 0, 1]}))
    assert found.box == (32, 16, 48, 32)


def test_the_last_level_ends_the_rows() -> None:
    (found,) = detect(own(), output({CELLS - 1: [0.5, 0.5, 0, 0, 1, 0, 1]}))
    assert found.box == (32, 32, 64, 64)


def test_the_score_is_objectness_times_class() -> None:
    (found,) = detect(own(), output({0: [0.5, 0.5, 0, 0, 0.5, 0.1, 0.8]}))
    assert (found.label, found.class_id) == ("dog", 1)
    assert found.score == pytest.approx(0.4)


def test_overlapping_boxes_are_suppressed() -> None:
    twins = {0: [0.5, 0.5, 0, 0, 0.9, 1, 0], 1: [-0.5, 0.5, 0, 0, 0.8, 1, 0]}
    assert len(detect(own(), output(twins))) == 1


def test_decoded_boxes_are_tensor_pixels() -> None:
    (found,) = detect(own(decoded=True), output({0: [20, 30, 8, 4, 1, 0, 1]}, cells=5))
    assert found.box == (16, 28, 24, 32)


def test_a_fourth_level_needs_its_stride() -> None:
    (found,) = detect(own(strides=[8, 16, 32, 64]), output({CELLS: [0.5, 0.5, 0, 0, 1, 0, 1]}, cells=CELLS + 1))
    assert found.box == (0, 0, 64, 64)


def test_a_wide_tensor_has_wide_levels() -> None:
    wide = bundle("yolox", [("output", [1, None, 7])], list(LABELS), input_shape=[1, 3, 32, 64])
    # 4 rows of 8 cells: row 1, column 7 is the sixteenth.
    (found,) = detect(wide, output({15: [0.5, 0.5, 0, 0, 1, 0, 1]}, cells=32 + 8 + 2), source_hw=(32, 64))
    assert found.box == (56, 8, 64, 16)


def test_a_size_that_overflows_is_left_out_in_silence() -> None:
    rows = {0: [0.5, 0.5, 1000, 0, 1, 0, 1], 60: [0.5, 0.5, 0, 0, 1, 0, 1]}
    assert len(detect(own(), output(rows))) == 1


def test_the_boxes_are_those_of_a_loop_over_cells() -> None:
    raw = np.random.default_rng(3).uniform(0.2, 0.8, (CELLS, 7)).astype(np.float32)
    raw[:, 5] = 0
    slow, place = [], 0
    for stride in (8, 16, 32):
        for row in range(64 // stride):
            for column in range(64 // stride):
                x, y, w, h, objectness, _, dog = raw[place].tolist()
                width, height = exp(w) * stride, exp(h) * stride
                left, top = (x + column) * stride - width / 2, (y + row) * stride - height / 2
                slow.append((objectness * dog, [left, top, left + width, top + height]))
                place += 1
    slow.sort(reverse=True)
    found = detect(own(nms=False), {"output": raw[None]}, score_threshold=0)
    expected = [np.clip(box, 0, 64).tolist() for _, box in slow]
    assert [list(one.box) for one in found] == [pytest.approx(box, abs=2e-3) for box in expected]


def test_too_few_cells_are_told_with_the_right_number() -> None:
    with pytest.raises(ModelOutputMismatch) as caught:
        detect(own(), output({}, cells=80))
    expected = "[1, 84, 7] for strides 8, 16, 32"
    assert caught.value.status == 502
    assert caught.value.figures == {"output": "output", "expected": expected, "found": [1, 80, 7]}


@pytest.mark.parametrize("shape", [(84, 7), (2, 84, 7), (1, 84, 8), (1, 7, 84)])
def test_an_output_of_another_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelOutputMismatch) as caught:
        detect(own(), {"output": np.zeros(shape, np.float32)})
    assert caught.value.figures == {"output": "output", "expected": "[1, N, 7] for 2 labels", "found": list(shape)}


@pytest.mark.parametrize("strides", [[], [0], [8, -1], "8,16"])
def test_wrong_strides_are_refused(strides: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"postprocess\.strides"):
        tasks.build(own(strides=strides))


def test_the_arrays_of_the_network_are_left_as_they_are() -> None:
    outputs = output({0: [0.5, 0.5, 0, 0, 1, 0, 1]})
    before = floats(outputs["output"])
    detect(own(), outputs)
    assert (outputs["output"] == before).all()
