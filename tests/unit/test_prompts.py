"""Prompts: what a request may ask for, and in what form the decoder is given it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import InvalidParameter
from shared.geometry import letterbox
from shared.parameters import PromptableParameters, parse
from shared.predictions import Array
from shared.tasks import prompts
from shared.tasks.arrays import packed, unpacked
from shared.tasks.prompts import Prompts

SOURCE_HW, MASK_HW = (100, 200), (256, 256)
GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "sam.json").read_text())


def of(mask_hw: tuple[int, int] | None = MASK_HW, **given: Any) -> Prompts:
    found = prompts.of(parse(PromptableParameters(), given), SOURCE_HW, mask_hw)
    assert found is not None
    return found


def refusal(**given: Any) -> str:
    with pytest.raises(InvalidParameter) as caught:
        of(**given)
    return caught.value.message


def mask(*shape: int, dtype: Any = "float16") -> Array:
    return packed(np.zeros(shape, np.float32), dtype)


def test_nothing_named_asks_for_everything() -> None:
    assert prompts.of(PromptableParameters(), SOURCE_HW, MASK_HW) is None


def test_points_together_are_one_object() -> None:
    found = of(points=[[10, 20], [30, 40]])
    assert found.points_xy.tolist() == [[[10, 20], [30, 40]]]
    assert found.labels.tolist() == [[1, 1]]


def test_labels_say_which_points_lie_beside_the_object() -> None:
    assert of(points=[[10, 20], [30, 40]], point_labels=[1, 0]).labels.tolist() == [[1, 0]]


def test_the_names_of_older_clients_are_taken() -> None:
    assert of(input_point=[[10, 20]], input_label=[0]).labels.tolist() == [[0]]


def test_several_boxes_are_several_objects() -> None:
    found = of(boxes=[[1, 2, 3, 4], [5, 6, 7, 8]])
    assert found.points_xy.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert found.labels.tolist() == [[2, 3], [2, 3]]


def test_points_refine_one_box_and_stand_before_its_corners() -> None:
    found = of(points=[[10, 20]], point_labels=[0], box=[1, 2, 30, 40])
    assert found.points_xy.tolist() == [[[10, 20], [1, 2], [30, 40]]]
    assert found.labels.tolist() == [[0, 2, 3]]


def test_a_box_is_clipped_to_the_picture() -> None:
    assert of(box=[-5, -5, 500, 50]).points_xy.tolist() == [[[0, 0], [200, 50]]]


def test_a_mask_alone_is_a_prompt_without_points() -> None:
    found = of(mask_input=mask(256, 256))
    assert found.labels.shape == (1, 0)
    assert found.masks is not None
    assert found.masks.shape == (1, 256, 256)


def test_each_of_several_boxes_has_its_own_mask() -> None:
    found = of(boxes=[[1, 2, 3, 4], [5, 6, 7, 8]], mask_input=mask(2, 256, 256, dtype="float32"))
    assert found.masks is not None
    assert found.masks.shape == (2, 256, 256)


def test_a_part_of_the_prompts_keeps_its_masks() -> None:
    part = of(boxes=[[1, 2, 3, 4], [5, 6, 7, 8]], mask_input=mask(2, 256, 256)).part(1, 2)
    assert part.points_xy.tolist() == [[[5, 6], [7, 8]]]
    assert part.masks is not None
    assert len(part) == len(part.masks) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"box": [1, 2, 3, 4], "boxes": [[1, 2, 3, 4]]}, "either box or boxes"),
        ({"points": [[1, 2]], "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]]}, "ask for each box on its own"),
        ({"points": [[1, 2], [3, 4]], "point_labels": [1]}, "a label for each of 2 points, found 1"),
        ({"point_labels": [1]}, "a label for each of 0 points, found 1"),
        ({"points": [[201, 5]]}, "[201, 5] lies outside the picture, which is 200 wide and 100 high"),
        ({"points": [[5, -1]]}, "outside the picture"),
        ({"box": [30, 2, 3, 4]}, "x1 < x2 and y1 < y2, found [30, 2, 3, 4]"),
        ({"boxes": [[1, 2, 3, 2]]}, "x1 < x2 and y1 < y2"),
        ({"box": [300, 2, 400, 4]}, "outside the picture"),
        ({"mask_input": mask(128, 128)}, "expected shape [256, 256] or [1, 256, 256], found [128, 128]"),
        ({"mask_input": mask(256, 256), "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]]}, "expected shape [2, 256, 256]"),
        ({"mask_input": Array((256, 256), "float32", b"short")}, "262144 bytes, found 5"),
        ({"mask_input": Array((256, 256), "float32", b"\xff" * 262144)}, "expected finite numbers"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    assert words in refusal(**given)


def test_a_model_without_mask_input_says_so() -> None:
    assert refusal(mask_hw=None, mask_input=mask(256, 256)) == "mask_input: this model takes no earlier mask"


def test_numbers_come_back_as_they_were_sent() -> None:
    values = np.linspace(-30, 30, 12, dtype=np.float32).reshape(3, 4)
    assert (unpacked(packed(values, "float32"), "mask_input") == values).all()
    assert np.abs(unpacked(packed(values, "float16"), "mask_input") - values).max() < 0.02


def test_a_number_too_large_for_float16_stays_a_number() -> None:
    assert unpacked(packed(np.full(1, 1e9, np.float32), "float16"), "mask_input")[0] == 65504


@pytest.mark.parametrize("case", GOLDEN["coordinates"], ids=lambda case: str(case["size"]))
def test_points_land_where_segment_anything_puts_them(case: dict[str, Any]) -> None:
    resize = letterbox(tuple(case["size"]), (1024, 1024), center=False)
    assert resize.content_hw == tuple(case["content"])
    landed = resize.points_to_model(np.array(case["points"], np.float32))
    np.testing.assert_allclose(landed, case["landed"], rtol=1e-6, atol=1e-4)
