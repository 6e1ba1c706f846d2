"""The parts of a picture and the points in them."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import InvalidParameter
from shared.parameters import PromptableParameters
from shared.tasks import crops
from shared.tasks.crops import Part


def parts(hw: tuple[int, int], **given: Any) -> tuple[Part, ...]:
    return crops.parts(hw, PromptableParameters(**given))


def test_without_layers_the_whole_picture_is_looked_at() -> None:
    assert parts((600, 900)) == (Part(0, 0, 900, 600, 32),)


def test_a_layer_has_parts_that_overlap() -> None:
    # overlap 0.25 * 600 = 150: two of 525 make 900 wide, two of 375 make 600 high
    assert [part[:4] for part in parts((600, 900), crop_n_layers=1, crop_overlap_ratio=0.25)[1:]] == [
        (0, 0, 525, 375),
        (0, 225, 525, 600),
        (375, 0, 900, 375),
        (375, 225, 900, 600),
    ]


def test_each_layer_has_four_times_as_many() -> None:
    assert len(parts((600, 900), crop_n_layers=3)) == 1 + 4 + 16 + 64


def test_deeper_layers_have_fewer_points_on_request() -> None:
    found = parts((600, 900), crop_n_layers=2, crop_n_points_downscale_factor=3)
    assert [part.points_per_side for part in found] == [32] + 4 * [10] + 16 * [3]


def test_a_layer_without_points_is_an_error() -> None:
    with pytest.raises(InvalidParameter, match="leaves no point in layer 2 of crop_n_layers with points_per_side 8"):
        parts((600, 900), points_per_side=8, crop_n_layers=2, crop_n_points_downscale_factor=3)


def test_parts_of_a_narrow_picture_hold_pixels() -> None:
    assert all(part.area for part in parts((1, 5), crop_n_layers=4))


def test_points_lie_in_the_middle_of_their_fields_row_by_row() -> None:
    assert crops.grid(Part(100, 50, 140, 70, 2)).tolist() == [[10, 5], [30, 5], [10, 15], [30, 15]]


LEFT = Part(0, 0, 525, 600, 32)


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        ((100.0, 100.0, 400.0, 300.0), False),
        ((100.0, 100.0, 506.0, 300.0), True),  # its last pixel is 505, 20 away from the part's edge
        ((100.0, 100.0, 505.0, 300.0), False),
        ((0.0, 0.0, 400.0, 600.0), False),  # at edges of the picture
    ],
)
def test_a_mask_is_cut_at_an_edge_inside_the_picture(box: tuple[float, float, float, float], cut: bool) -> None:
    assert crops.is_cut(box, LEFT, (600, 900)) is cut
