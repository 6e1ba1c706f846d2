"""Outlines: filled, they are the mask."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.masks.placed import Placed
from shared.masks.polygons import polygons
from shared.predictions import Polygon
from tests.unit.test_masks_rle import cropped, pixels


def windings(found: tuple[Polygon, ...], hw: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How often the rings go round each pixel; clockwise on the screen is +1."""
    turns = np.zeros((hw[0], hw[1] + 1), np.int64)
    for ring in (ring for polygon in found for ring in polygon):
        for (x, y), (to_x, to_y) in pairwise((*ring, ring[0])):
            assert (x == to_x) != (y == to_y)
            turns[int(min(y, to_y)) : int(max(y, to_y)), int(x)] += np.sign(int(y - to_y))
    return np.cumsum(turns, axis=1)[:, :-1]


def drawn(*rows: str) -> tuple[Polygon, ...]:
    return polygons(cropped(pixels(list(rows))))


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.2, 0.9), st.randoms(use_true_random=False))
def test_filled_they_are_the_mask(height: int, width: int, share: float, random: Any) -> None:
    full = np.array([[random.random() < share for _ in range(width)] for _ in range(height)], np.bool_)
    assert (windings(polygons(cropped(full)), full.shape) == full).all()


def test_a_rectangle_has_its_four_corners_clockwise_from_the_top_left() -> None:
    assert polygons(Placed(10, 20, np.ones((2, 3), np.bool_), (99, 99))) == (
        (((20, 10), (23, 10), (23, 12), (20, 12)),),
    )


def test_a_hole_goes_the_other_way() -> None:
    found = drawn("111", "101", "111")
    assert found == ((((0, 0), (3, 0), (3, 3), (0, 3)), ((1, 2), (2, 2), (2, 1), (1, 1))),)


def test_pixels_that_touch_at_a_corner_are_two_polygons() -> None:
    assert [len(polygon) for polygon in drawn("10", "01")] == [1, 1]
    assert [len(polygon) for polygon in drawn("01", "10")] == [1, 1]


def test_holes_that_touch_at_a_corner_are_one_ring() -> None:
    for rows in (("1111", "1011", "1101", "1111"), ("1111", "1101", "1011", "1111")):
        assert [len(polygon) for polygon in drawn(*rows)] == [2]


def test_an_island_in_a_hole_is_a_polygon_of_its_own_and_a_hole_belongs_to_its_piece() -> None:
    found = drawn("1111111", "1000001", "1011101", "1010101", "1011101", "1000001", "1111111")
    assert [[len(ring) for ring in polygon] for polygon in found] == [[4, 4], [4, 4]]
    assert [min(polygon[0]) for polygon in found] == [(0, 0), (2, 2)]
    assert [min(polygon[1]) for polygon in found] == [(1, 1), (3, 3)]


def test_an_empty_mask_has_none() -> None:
    assert polygons(Placed(0, 0, np.zeros((0, 0), np.bool_), (9, 9))) == ()
    assert polygons(Placed(2, 2, np.zeros((3, 3), np.bool_), (9, 9))) == ()


def disk(radius: int) -> Placed:
    y, x = np.mgrid[: 2 * radius, : 2 * radius]
    bits = np.hypot(y - radius + 0.5, x - radius + 0.5) < radius
    return Placed(3, 5, bits, (3 * radius, 3 * radius))


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 4.0])
def test_no_corner_that_is_left_out_is_farther_than_the_tolerance(tolerance: float) -> None:
    exact, fewer = (np.array(polygons(disk(60), tol)[0][0]) for tol in (0.0, tolerance))
    begin, end = fewer, np.roll(fewer, -1, axis=0)
    along = end - begin
    share = ((exact[:, None] - begin) * along).sum(2) / (along**2).sum(1)
    nearest = begin + np.clip(share, 0, 1)[:, :, None] * along
    assert np.linalg.norm(exact[:, None] - nearest, axis=2).min(axis=1).max() <= tolerance + 1e-9
    assert len(fewer) < len(exact)


def test_an_outer_ring_that_would_vanish_keeps_its_corners() -> None:
    assert polygons(Placed(0, 0, np.ones((1, 9), np.bool_), (9, 9)), 3.0) == ((((0, 0), (9, 0), (9, 1), (0, 1)),),)


def test_a_hole_that_would_vanish_is_filled() -> None:
    bits = np.ones((40, 40), np.bool_)
    bits[20, 20] = bits[30, 2:38] = False
    assert [len(polygon) for polygon in polygons(Placed(0, 0, bits, (40, 40)), 2.0)] == [1]
