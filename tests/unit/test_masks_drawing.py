"""Masks on the drawn picture."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from shared.call import Call
from shared.errors import DeadlineExceeded
from shared.masks.painting import paint
from shared.masks.placed import Placed
from shared.masks.rle import encoded, heart
from shared.predictions import Box, Enlarged, Instance, Mask, Prediction, Segment
from shared.render import colour, drawn
from tests.hostile_pictures import saved

RED = (250, 0, 0)
GREY = (90, 90, 90)
PIXELS = 50_000_000


def block(top: int, left: int, height: int, width: int, hw: tuple[int, int] = (400, 600)) -> Mask:
    return encoded(Placed(top, left, np.ones((height, width), np.bool_), hw))


def painted(mask: Any, line: int, factor: int = 1) -> np.ndarray[Any, np.dtype[np.uint8]]:
    canvas = Pillow.new("RGB", (mask.size[1] * factor, mask.size[0] * factor))
    paint(canvas, mask, RED, line, factor)
    return np.asarray(canvas)[..., 0]


def shown(*found: Any, hw: tuple[int, int] = (400, 600)) -> Pillow.Image:
    data = saved(Pillow.new("RGB", hw[::-1], GREY), "PNG")
    return Pillow.open(BytesIO(drawn(data, Prediction(hw, found), "png", PIXELS)))


def segment(mask: Mask, box: Box, area: int, score: float = 0.9, point: tuple[float, float] | None = None) -> Segment:
    return Segment(score, mask, area, box, 0.95, point=point)


def test_a_mask_is_tinted_and_its_edge_is_solid() -> None:
    row = painted(block(2, 3, 6, 8, (10, 14)), line=2)[5]
    assert row.tolist() == [0] * 3 + [250] * 2 + [113] * 4 + [250] * 2 + [0] * 3


def test_on_an_enlarged_picture_the_mask_is_as_large_and_the_line_as_thin() -> None:
    small = painted(block(2, 3, 6, 8, (10, 14)), line=2, factor=3)
    assert (small > 0).sum() == 6 * 8 * 9
    assert small[16].tolist() == [0] * 9 + [250] * 2 + [113] * 20 + [250] * 2 + [0] * 9


def test_the_line_runs_along_holes_and_the_edge_of_the_picture() -> None:
    bits = np.ones((9, 9), np.bool_)
    bits[4, 4] = False
    assert painted(encoded(Placed(0, 0, bits, (9, 9))), line=1)[4].tolist() == [
        250,
        113,
        113,
        250,
        0,
        250,
        113,
        113,
        250,
    ]


def test_a_mask_of_several_bands_has_no_seam() -> None:
    tall = painted(block(1, 1, 3000, 998, (3002, 1000)), line=3)
    assert (tall[4:2998, 4:996] == 113).all()
    assert (tall[1:4, 1:999] == 250).all()
    assert (tall[2998:3001, 1:999] == 250).all()


def test_an_empty_mask_leaves_the_picture_as_it_was() -> None:
    empty = encoded(Placed(0, 0, np.zeros((0, 0), np.bool_), (400, 600)))
    image = shown(Instance("cat", 1, 0.9, (10, 300, 20, 310), empty, 0))
    assert image.getpixel((300, 100)) == GREY


def test_instances_of_one_class_have_their_own_colours() -> None:
    places: list[tuple[int, Box]] = [(50, (50, 100, 150, 300)), (350, (350, 100, 450, 300))]
    found = [Instance("cat", 7, 0.9, box, block(100, left, 200, 100), 20000) for left, box in places]
    image = np.asarray(shown(*found)).astype(int)
    for number, left in enumerate((50, 350)):
        mixed = (np.array(colour(number)) * 115 + np.array(GREY) * 140) / 255
        assert np.abs(image[250, left + 50] - mixed).max() <= 1


def test_a_mask_that_is_not_run_lengths_is_not_drawn_but_its_box_is() -> None:
    image = shown(Instance("cat", 7, 0.9, (50, 100, 150, 300), None, 0))
    assert image.getpixel((100, 250)) == GREY
    assert image.getpixel((50, 200)) == colour(0)


def test_a_smaller_mask_lies_on_a_larger_one_whatever_their_scores() -> None:
    large = segment(block(50, 50, 300, 500), (50, 50, 550, 350), 150_000, score=0.9)
    small = segment(block(250, 250, 60, 60), (250, 250, 310, 310), 3600, score=0.5)
    assert shown(large, small).getpixel((250, 300)) == colour(1)


def test_a_segment_has_its_score_in_its_midst_and_no_box() -> None:
    image = np.asarray(shown(segment(block(100, 100, 200, 300), (100, 100, 400, 300), 60_000)))
    solid = (image == colour(0)).all(axis=2)
    solid[100:300, 100:400] &= False
    assert not solid.any()
    assert (image[190:210, 240:260] == colour(0)).all(axis=2).any()


@pytest.mark.parametrize(("point", "tagged"), [(None, True), ((105.0, 105.0), False)])
def test_an_automatic_mask_that_is_smaller_than_its_score_has_none(point: Any, tagged: bool) -> None:
    image = np.asarray(shown(segment(block(100, 100, 8, 8), (100, 100, 108, 108), 64, point=point)))
    assert bool((image == 0).all(axis=2).any() or (image == 255).all(axis=2).any()) is tagged


def test_the_heart_of_a_mask_lies_in_it() -> None:
    ring = np.ones((9, 9), np.bool_)
    ring[2:7, 2:7] = False
    assert heart(encoded(Placed(10, 20, ring, (50, 60)))) == (27, 14)


def test_the_heart_of_nothing_is_the_corner() -> None:
    assert heart(encoded(Placed(0, 0, np.zeros((0, 0), np.bool_), (5, 6)))) == (0, 0)


def test_the_time_is_looked_at_before_each_mask_is_drawn() -> None:
    found = (segment(block(100, 100, 50, 50), (100, 100, 150, 150), 2500),) * 5
    data, call = saved(Pillow.new("RGB", (600, 400), GREY), "PNG"), Call("test", 0)
    with pytest.raises(DeadlineExceeded):
        drawn(data, Prediction((400, 600), found), "png", PIXELS, call.check)


def test_an_enlarged_picture_is_shown_as_it_is() -> None:
    enlarged = Enlarged(b"the picture", 8, 8, "png", 2)
    assert drawn(b"any", Prediction((4, 4), (enlarged,)), "png", PIXELS) == b"the picture"
