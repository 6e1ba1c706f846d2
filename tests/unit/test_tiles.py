"""Tiles cover a picture in equal shapes, and what is made of them has no edge where they meet."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image as Pillow

from shared.tasks.tiles import Mosaic, Seam, Span, spans

SEAM = Seam(3, 4)
LENGTHS = [1, 2, 31, 32, 33, 34, 54, 55, 100, 101, 333, 1000]


def test_what_fits_is_one_tile() -> None:
    assert spans(32, 32, SEAM) == (Span(0, 32, 0, 32, 0),)


def test_two_tiles_of_the_least_side_that_will_do() -> None:
    assert spans(34, 32, SEAM) == (Span(0, 22, 0, 19, 0), Span(12, 34, 15, 34, 4))


@pytest.mark.parametrize("length", LENGTHS)
def test_every_pixel_is_kept_once_but_for_the_ramps(length: int) -> None:
    parts = spans(length, 32, SEAM)
    assert parts[0].begin == 0
    assert parts[-1].end == length
    assert all(before.end - after.begin == after.ramp == SEAM.ramp for before, after in pairwise(parts))


@pytest.mark.parametrize("length", LENGTHS)
def test_no_three_tiles_meet(length: int) -> None:
    parts = spans(length, 32, SEAM)
    assert all(part.begin + part.ramp <= after.begin for part, after in pairwise(parts))


@pytest.mark.parametrize("length", LENGTHS)
def test_tiles_have_one_side_and_lie_inside(length: int) -> None:
    parts = spans(length, 32, SEAM)
    assert len({part.stop - part.start for part in parts}) == 1
    assert all(0 <= part.start < part.stop <= length and part.stop - part.start <= 32 for part in parts)


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_kept_is_a_margin_away_from_every_inner_edge(length: int) -> None:
    for part in spans(length, 32, SEAM):
        assert part.start == 0 or part.begin - part.start >= SEAM.margin
        assert part.stop == length or part.stop - part.end >= SEAM.margin


@pytest.mark.parametrize("length", LENGTHS)
def test_sides_are_multiples_where_there_are_several(length: int) -> None:
    parts = spans(length, 32, SEAM, multiple_of=8)
    assert len(parts) == 1 or (parts[0].stop - parts[0].start) % 8 == 0


def test_a_fixed_side_is_kept() -> None:
    assert {part.stop - part.start for part in spans(100, 32, SEAM, multiple_of=32)} == {32}


def test_a_million_pixels_are_planned_at_once() -> None:
    assert len(spans(1_000_000, 256, Seam(10, 4))) == 4311


def laid(picture: np.ndarray, side: int, scale: int, mode: str = "RGB", spare: int = 0) -> np.ndarray:
    """`picture` [H, W, 3] in tiles, each repeated `scale` times, put together again."""
    height, width = picture.shape[:2]
    canvas = Pillow.new(mode, (width * scale, height * scale))
    mosaic = Mosaic(canvas, scale)
    for row in spans(height, side, SEAM):
        for column in spans(width, side, SEAM):
            tile = picture[row.start : row.stop, column.start : column.stop].repeat(scale, 0).repeat(scale, 1)
            mosaic.lay(np.pad(tile, ((0, spare), (0, spare), (0, 0))), row, column)
    return np.asarray(canvas)


@pytest.mark.parametrize("hw", [(1, 1), (1, 70), (70, 1), (20, 30), (33, 80), (90, 71)])
@pytest.mark.parametrize("scale", [2, 3])
def test_tiles_that_agree_give_the_picture(hw: tuple[int, int], scale: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)
    assert np.array_equal(laid(picture, 32, scale), picture.repeat(scale, 0).repeat(scale, 1))


def test_what_lies_beyond_the_picture_is_left_out() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert np.array_equal(laid(picture, 32, 2, spare=5), laid(picture, 32, 2))


def test_a_grey_canvas_takes_the_luminance() -> None:
    picture = np.full((40, 50, 3), (255, 0, 0), np.uint8)
    assert set(laid(picture, 32, 2, "L").ravel()) == {76}


def of_levels(levels: list[list[int]], scale: int = 2) -> np.ndarray:
    """Tiles of one level each on two axes of as many spans, red channel."""
    rows, columns = (spans(12 + 22 * (number - 1), 22, Seam(3, 4)) for number in (len(levels), len(levels[0])))
    canvas = Pillow.new("RGB", (columns[-1].end * scale, rows[-1].end * scale))
    mosaic = Mosaic(canvas, scale)
    for row, row_levels in zip(rows, levels, strict=True):
        for column, level in zip(columns, row_levels, strict=True):
            side = 22 * scale
            mosaic.lay(np.full((side, side, 3), level, np.uint8), row, column)
    return np.asarray(canvas)[..., 0].astype(int)


def test_tiles_that_differ_fade_evenly() -> None:
    line = of_levels([[0, 90]])[0]
    assert [*np.diff(line)].count(10) == 9
    assert (line[0], line[-1]) == (0, 90)


def test_tiles_that_differ_fade_evenly_downwards() -> None:
    column = of_levels([[0], [90]])[:, 0]
    assert [*np.diff(column)].count(10) == 9


def test_where_four_tiles_meet_they_fade_along_both_axes() -> None:
    corner = of_levels([[0, 90], [90, 180]])
    assert np.abs(corner - np.add.outer(corner[:, 0], corner[0])).max() <= 1
