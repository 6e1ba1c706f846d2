"""Small holes and pieces of a mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.masks import rle
from shared.masks.regions import without_small_regions
from shared.predictions import Rle
from tests.unit.test_masks_rle import cropped, pixels, whole

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "masks.json").read_text(encoding="utf-8")
)["regions"]

MASK = pixels(
    [
        "1111100000",
        "1010100000",
        "1111100010",
        "0000000110",
    ]
)


def cleaned(least_area: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return whole(rle.decoded(without_small_regions(rle.encoded(cropped(MASK)), least_area)[0].rle))


@pytest.mark.parametrize("case", CASES)
def test_they_go_as_in_segment_anything(case: dict[str, Any]) -> None:
    before, after = (case[name] for name in ("before", "after"))
    found, changed = without_small_regions(Rle(tuple(before["size"]), before["counts"]), case["least_area"])
    assert (found.rle.counts, found.area, list(found.box)) == (after["counts"], after["area"], after["box"])
    assert changed is case["changed"]


def test_small_holes_are_filled_and_small_pieces_go() -> None:
    assert cleaned(4).astype(int).tolist() == [[1] * 5 + [0] * 5] * 3 + [[0] * 10]


def test_pixels_that_touch_at_a_corner_are_one_piece() -> None:
    assert cleaned(3)[2:, 7:9].tolist() == [[False, True], [True, True]]


def test_what_is_large_enough_stays() -> None:
    found, changed = without_small_regions(rle.encoded(cropped(MASK)), 1)
    assert (found, changed) == (rle.measured(cropped(MASK)), False)


def test_the_largest_piece_stays_though_it_is_small() -> None:
    found, changed = without_small_regions(rle.encoded(cropped(pixels(["1100000000000001"]))), 3)
    assert (found.box, changed) == ((0.0, 0.0, 2.0, 1.0), True)


@pytest.mark.parametrize("fill", [0, 1])
def test_an_empty_and_a_full_mask_stay_as_they_are(fill: int) -> None:
    mask = rle.encoded(cropped(np.full((4, 5), bool(fill))))
    assert without_small_regions(mask, 3)[0].area == 20 * fill
