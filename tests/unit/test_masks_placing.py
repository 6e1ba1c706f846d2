"""Planes and small masks placed in the picture: what the reference implementations make of them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.geometry import Resize, letterbox
from shared.masks import enlargement, rle, roi
from shared.masks.enlargement import Enlargement
from shared.masks.placed import Crop, Placed
from shared.predictions import Rle
from tests.golden_masks import OFFSET, ROI_SOURCE, probabilities, sam_frame, values, yolo_frame
from tests.unit.test_masks_rle import whole

DATA = Path(__file__).parents[1] / "data"
CASES: dict[str, list[dict[str, Any]]] = json.loads((DATA / "masks.json").read_text(encoding="utf-8"))
PLANES = np.load(DATA / "masks.npz")
TIES = 1e-5
"""The part of the pixels that may differ, because sums are taken in another order."""

RAMP = np.tile(np.arange(-4, 4, dtype=np.float32) + 0.5, (8, 1))
"""Above zero in the right half."""


def judged(case: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return whole(rle.decoded(Rle((case["size"][0], case["size"][1]), case["counts"])))


def assert_same(found: Placed, case: dict[str, Any]) -> None:
    expected = judged(case)
    assert found.source_hw == expected.shape
    assert np.count_nonzero(whole(found) != expected) <= TIES * expected.size


def sam(case: dict[str, Any]) -> tuple[np.ndarray[Any, np.dtype[np.float32]], Enlargement]:
    return values(PLANES[case["plane"]]), enlargement.sam((256, 256), sam_frame(tuple(case["source"])))


@pytest.mark.parametrize("case", CASES["sam"])
def test_low_resolution_logits_give_the_mask_of_segment_anything(case: dict[str, Any]) -> None:
    assert_same(enlargement.placed(*sam(case)), case)


@pytest.mark.parametrize("case", CASES["sam"])
def test_stability_is_counted_at_source_pixels_as_segment_anything_does(case: dict[str, Any]) -> None:
    plane, enlarging = sam(case)
    ties = TIES * case["size"][0] * case["size"][1]
    assert enlargement.counts(plane, enlarging, (OFFSET, 0.0, -OFFSET)) == pytest.approx(case["above"], abs=ties)
    assert enlargement.stability(plane, enlarging) == pytest.approx(case["stability"], abs=1e-5)


@pytest.mark.parametrize("case", CASES["yolo"])
def test_prototypes_give_the_mask_of_process_mask_native(case: dict[str, Any]) -> None:
    plane, frame = values(PLANES["yolo"]), yolo_frame(tuple(case["source"]))
    assert_same(enlargement.placed(plane, enlargement.content((160, 160), frame), box=case["in"]), case)


@pytest.mark.parametrize("case", CASES["roi"])
@pytest.mark.parametrize("paste", [roi.torchvision, roi.detectron2])
def test_a_box_gets_the_mask_of_paste_masks_in_image(case: dict[str, Any], paste: Any) -> None:
    assert_same(paste(probabilities(PLANES["roi"]), case["in"], ROI_SOURCE), case[paste.__name__])


@pytest.mark.parametrize("case", CASES["sam"][::3])
def test_a_mask_in_bands_is_the_mask_that_was_placed(case: dict[str, Any]) -> None:
    assert enlargement.mask(*sam(case)) == rle.measured(enlargement.placed(*sam(case)))


def test_a_plane_is_stretched_over_the_picture() -> None:
    found = enlargement.mask(RAMP, enlargement.stretched((8, 8), (20, 40)))
    assert (found.area, found.box) == (400, (20.0, 0.0, 40.0, 20.0))


def test_the_padding_of_a_letterbox_is_cut_off() -> None:
    frame = letterbox((40, 80), (64, 64), center=True)
    found = enlargement.mask(RAMP, enlargement.content((8, 8), frame))
    assert (found.area, found.box) == (1600, (40.0, 0.0, 80.0, 40.0))


@pytest.mark.parametrize("make", [enlargement.content, enlargement.sam])
def test_a_plane_may_be_larger_than_the_picture(make: Any) -> None:
    found = enlargement.placed(RAMP, make((8, 8), Resize((2, 4), (64, 64), (64, 64))))
    assert whole(found).tolist() == [[False, False, True, True]] * 2


def test_the_threshold_is_itself_background() -> None:
    flat = np.full((4, 4), 0.25, np.float32)
    enlarging = enlargement.stretched((4, 4), (8, 8))
    assert enlargement.mask(flat, enlarging, 0.25).area == 0
    assert enlargement.mask(flat, enlarging, 0.2).area == 64


def test_a_box_keeps_the_pixels_whose_places_lie_in_it() -> None:
    found = enlargement.placed(RAMP, enlargement.stretched((8, 8), (20, 40)), box=(21.2, 3.0, 24.0, 5.1))
    assert (found.top, found.left, found.bits.shape) == (3, 22, (3, 2))


@pytest.mark.parametrize("box", [(50, 2, 60, 4), (-9, 2, -3, 4), (30, 8, 30, 9), (30, 8, 20, 9)])
def test_a_box_without_pixels_has_an_empty_mask(box: tuple[float, ...]) -> None:
    found = enlargement.mask(RAMP, enlargement.stretched((8, 8), (20, 40)), box=box)
    assert (found.area, found.box, rle.area(found.rle)) == (0, (0.0, 0.0, 0.0, 0.0), 0)


def test_the_mask_of_a_crop_lies_in_the_whole_picture() -> None:
    enlarging = enlargement.stretched((8, 8), (20, 40), Crop(100, 200, (300, 400)))
    found = enlargement.mask(RAMP, enlarging)
    assert (found.rle.size, found.box) == ((300, 400), (220.0, 100.0, 240.0, 120.0))


def test_nothing_above_the_threshold_is_an_empty_mask() -> None:
    found = enlargement.placed(RAMP - 100, enlargement.stretched((8, 8), (20, 40)))
    assert found.bits.shape == (0, 0)


def test_the_stability_of_nothing_is_none() -> None:
    assert enlargement.stability(RAMP - 100, enlargement.stretched((8, 8), (20, 40))) == 0


def test_a_plane_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a plane of shape \[8, 8\], found \[4, 8\]"):
        enlargement.placed(RAMP[:4], enlargement.stretched((8, 8), (20, 40)))


@pytest.mark.parametrize("paste", [roi.torchvision, roi.detectron2])
def test_a_box_outside_the_picture_has_an_empty_mask(paste: Any) -> None:
    full = np.ones((28, 28), np.float32)
    assert [paste(full, box, (40, 60)).bits.size for box in ((70, 5, 90, 20), (5, -30, 9, -20), (1e9, 0, 2e9, 9))] == [
        0
    ] * 3


@pytest.mark.parametrize("paste", [roi.torchvision, roi.detectron2])
def test_a_box_far_larger_than_the_picture_costs_no_more_than_the_picture(paste: Any) -> None:
    found = paste(np.ones((28, 28), np.float32), (-1e8, -1e8, 1e8, 1e8), (40, 60))
    assert found.bits.shape == (40, 60)


@pytest.mark.parametrize("paste", [roi.torchvision, roi.detectron2])
def test_a_box_that_is_not_finite_is_refused(paste: Any) -> None:
    with pytest.raises(ValueError, match="four finite numbers"):
        paste(np.ones((28, 28), np.float32), (0, 0, float("nan"), 9), (40, 60))


def test_a_mask_over_48_megapixels_takes_a_few_megabytes() -> None:
    plane, enlarging = values(PLANES["sam"]), enlargement.sam((256, 256), sam_frame((6000, 8000)))
    tracemalloc.start()
    try:
        enlargement.mask(plane, enlarging)
        enlargement.stability(plane, enlarging)
        assert tracemalloc.get_traced_memory()[1] < 24e6
    finally:
        tracemalloc.stop()
