"""Run lengths: those of pycocotools, to the letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.masks import rle
from shared.masks.placed import Placed
from shared.predictions import Rle

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "masks.json").read_text(encoding="utf-8")
)["runs"]


def cropped(full: np.ndarray[Any, np.dtype[np.bool_]]) -> Placed:
    """The mask of a whole picture as the tight crop of it."""
    y, x = np.nonzero(full)
    if not len(y):
        return Placed(0, 0, np.zeros((0, 0), np.bool_), (full.shape[0], full.shape[1]))
    bits = full[y.min() : y.max() + 1, x.min() : x.max() + 1]
    return Placed(int(y.min()), int(x.min()), bits, (full.shape[0], full.shape[1]))


def whole(placed: Placed) -> np.ndarray[Any, np.dtype[np.bool_]]:
    full = np.zeros(placed.source_hw, np.bool_)
    height, width = placed.bits.shape
    full[placed.top : placed.top + height, placed.left : placed.left + width] = placed.bits
    return full


def pixels(rows: list[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.array([[letter == "1" for letter in row] for row in rows], np.bool_)


@pytest.mark.parametrize("case", CASES)
def test_a_crop_gives_what_pycocotools_gives_for_the_whole_picture(case: dict[str, Any]) -> None:
    found = rle.measured(cropped(pixels(case["rows"])))
    assert (list(found.rle.size), found.rle.counts) == (case["size"], case["counts"])
    assert (found.area, list(found.box)) == (case["area"], case["box"])


@pytest.mark.parametrize("case", CASES)
def test_area_and_box_are_read_from_the_run_lengths(case: dict[str, Any]) -> None:
    mask = Rle((case["size"][0], case["size"][1]), case["counts"])
    assert (rle.area(mask), list(rle.box(mask))) == (case["area"], case["box"])


@pytest.mark.parametrize("case", CASES)
def test_the_mask_comes_back(case: dict[str, Any]) -> None:
    full = pixels(case["rows"])
    assert (whole(rle.decoded(Rle(full.shape, case["counts"]))) == full).all()


def test_by_hand() -> None:
    mask = rle.encoded(Placed(1, 1, np.array([[True, True], [False, True]]), (3, 4)))
    assert mask == Rle((3, 4), "41211")  # 4 off, 1 on, 2 off, 2 on told as 1 more than 1, 3 off told as 1 more than 2


def test_a_mask_that_is_not_tight_in_its_crop_is_the_same_mask() -> None:
    bits = np.zeros((5, 6), np.bool_)
    bits[2, 3] = True
    assert rle.encoded(Placed(1, 2, bits, (9, 9))) == rle.encoded(Placed(3, 5, np.ones((1, 1), np.bool_), (9, 9)))


def test_the_crop_of_a_small_mask_in_a_large_picture_is_small() -> None:
    mask = rle.encoded(Placed(5000, 7000, np.ones((10, 20), np.bool_), (6000, 8000)))
    found = rle.decoded(mask)
    assert (found.top, found.left, found.bits.shape) == (5000, 7000, (10, 20))


@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_there_and_back(height: int, width: int, random: Any) -> None:
    full = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)], np.bool_)
    assert (whole(rle.decoded(rle.encoded(cropped(full)))) == full).all()


@pytest.mark.parametrize(
    "counts", ["", "0", "5", "61", "7", "4Q", "o", "~3", "3\n", "3é", "oooooooo0", "N", "33N", "f" * 40, "1" * 1000]
)
def test_what_is_malformed_is_refused(counts: str) -> None:
    with pytest.raises(ValueError, match="run lengths: "):
        rle.decoded(Rle((2, 3), counts))


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="0 x 3"):
        rle.area(Rle((0, 3), "0"))
