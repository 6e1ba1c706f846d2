"""Which sizes of a network are measured, and the line over what was found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.staging.curves import Point, Size, elements, fitted, shape, sizes
from shared.manifest import Curve, Preprocess
from shared.tensors import TensorSpec

NHWC = Preprocess(layout="NHWC")
FREE = TensorSpec("image", "uint8", (1, None, None, 3))
PROMPTS = TensorSpec("point_coords", "float32", (None, None, 2))


def at(curve: Curve, count: int) -> float:
    return curve.fixed_mb + curve.per_million_mb * count / 1e6


def test_a_network_of_one_size_is_measured_once() -> None:
    assert sizes([TensorSpec("image", "uint8", (1, 300, 300, 3))], NHWC) == [Size(1, 1)]


def test_a_network_of_free_size_is_measured_at_several_sides() -> None:
    found = sizes([FREE], Preprocess(layout="NHWC", multiple_of=96))
    assert found[:3] == [Size(1, 96), Size(1, 192), Size(1, 288)]


def test_a_network_of_free_batch_is_measured_at_several() -> None:
    assert [size.batch for size in sizes([PROMPTS], NHWC)] == [1, 4, 16, 32, 64]


def test_open_axes_are_filled_in() -> None:
    assert shape(FREE, Size(1, 64), NHWC) == [1, 64, 64, 3]
    assert shape(PROMPTS, Size(16, 1), NHWC) == [16, 2, 2]
    assert elements([FREE, PROMPTS], Size(1, 64), NHWC) == 64 * 64 * 3 + 4


def test_points_on_a_line_give_that_line_with_some_room() -> None:
    curve = fitted([Point(1_000_000, 15.0), Point(2_000_000, 25.0), Point(3_000_000, 35.0)])
    assert at(curve, 2_000_000) == pytest.approx(25 * 1.03 + 2, abs=0.1)


def test_one_size_alone_is_a_line_without_slope() -> None:
    assert fitted([Point(5, 100.0), Point(5, 90.0)]) == Curve(105.0, 0.0)


def test_a_network_that_grows_late_begins_below_zero() -> None:
    curve = fitted([Point(1_100_000, 20.0), Point(1_300_000, 60.0), Point(5_200_000, 840.0)])
    assert curve.fixed_mb < 0
    assert at(curve, 1_100_000) == pytest.approx(20 * 1.03 + 2, abs=0.5)


@given(st.lists(st.tuples(st.integers(1, 10**8), st.floats(0, 1e4)), min_size=1, max_size=12))
def test_no_point_lies_above_its_line(found: list[tuple[int, float]]) -> None:
    points = [Point(*each) for each in found]
    curve = fitted(points)
    assert all(at(curve, point.elements) >= point.peak_mb - 0.02 - point.elements * 1e-8 for point in points)
