"""A mask as a reply carries it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow

from shared.errors import OutOfMemory
from shared.masks.forms import Presenter, presented
from shared.masks.placed import Placed
from shared.masks.polygons import polygons
from shared.masks.rle import encoded
from shared.predictions import Rle
from tests.unit.test_masks_rle import whole

BITS = np.random.default_rng(3).random((30, 17)) < 0.5
PLACED = Placed(4, 9, BITS, (50, 41))
MASK = encoded(PLACED)


def picture(mask: Rle) -> Pillow.Image:
    data = presented(mask, "png")
    assert isinstance(data, bytes)
    return Pillow.open(BytesIO(data))


def test_run_lengths_stay_as_they_are() -> None:
    assert presented(MASK, "rle") is MASK


def test_none_is_none() -> None:
    assert presented(MASK, "none") is None


def test_polygons_are_those_of_the_crop() -> None:
    assert presented(MASK, "polygon", 1.0) == polygons(PLACED, 1.0)


def test_a_png_is_the_whole_picture_with_one_bit_a_pixel() -> None:
    image = picture(MASK)
    assert (image.format, image.mode, image.size) == ("PNG", "1", (41, 50))
    assert (np.asarray(image) == whole(PLACED)).all()


@pytest.mark.parametrize("hw", [(1, 1), (1, 9), (9, 1), (3000, 900)])
def test_a_png_may_have_any_size(hw: tuple[int, int]) -> None:
    corner = Placed(hw[0] - 1, hw[1] - 1, np.ones((1, 1), np.bool_), hw)
    assert (np.asarray(picture(encoded(corner))) == whole(corner)).all()


def test_the_png_of_a_simple_mask_is_small() -> None:
    data = presented(encoded(Placed(10, 10, np.ones((900, 900), np.bool_), (3000, 4000))), "png")
    assert isinstance(data, bytes)
    assert len(data) < 8000


def test_the_polygons_of_a_reply_have_a_million_corners_at_most() -> None:
    board = encoded(Placed(0, 0, np.indices((560, 560)).sum(axis=0) % 2 == 1, (560, 560)))
    presented = Presenter("polygon", 0)
    presented(board)
    with pytest.raises(OutOfMemory, match="more than 1000000 corners; ask for a larger polygon_tolerance"):
        presented(board)
