"""Foreseeing that the time will not do."""

from __future__ import annotations

from typing import Any

import pytest

from shared.call import Call
from shared.errors import DeadlineExceeded
from shared.parameters import PromptableParameters
from shared.tasks.pace import Pace, Work

HW = (600, 900)


def pace(part_s: float = 1.0, point_s: float = 0.1, **given: Any) -> Pace:
    made = Pace(HW, PromptableParameters(**given))
    made.encoded(part_s)
    made.decoded(10, 10 * point_s)
    made.decoded(10, 10 * point_s)
    return made


def test_what_will_be_done_in_time_goes_on() -> None:
    pace().check(Work(0, 500), Call("test", 60))


def test_what_will_not_fails_with_the_largest_grid_that_would() -> None:
    # 1 s and 21 x 21 points of 0.1 s are 45.1 s, within four fifths of 60 s
    with pytest.raises(
        DeadlineExceeded,
        match=r"1024 points need about 103 s; 100 s are to go, .* ask for points_per_side 21 \(about 45",
    ):
        pace().check(Work(0, 1000), Call("test", 60))


def test_fewer_layers_are_proposed_first() -> None:
    asked = {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2, "points_per_side": 8}
    # 1 + 4 + 16 parts; without the last layer 5 s and 64 + 4 x 16 points of 0.1 s
    with pytest.raises(DeadlineExceeded, match=r"192 points in 21 parts .* ask for crop_n_layers 1 \(about 18 s\)"):
        pace(**asked).check(Work(20, 192), Call("test", 30))


def test_where_no_grid_would_do_prompts_are_proposed() -> None:
    with pytest.raises(DeadlineExceeded, match="name points or boxes"):
        pace(point_s=20).check(Work(0, 1000), Call("test", 20))


def test_the_first_batch_alone_tells_nothing() -> None:
    made = Pace(HW, PromptableParameters())
    made.decoded(10, 100)
    made.check(Work(0, 1014), Call("test", 60))


def test_one_slow_moment_ends_nothing() -> None:
    made = pace(point_s=0.01)
    made.decoded(10, 30)
    made.check(Work(0, 1000), Call("test", 60))


def test_parts_alone_can_take_too_long() -> None:
    made = Pace(HW, PromptableParameters(crop_n_layers=2))
    made.encoded(5)
    # how long 1024 points of one part would take is not known yet
    with pytest.raises(DeadlineExceeded, match=r"need more than 105 s; .* ask for fewer crop_n_layers$"):
        made.check(Work(20, 20 * 1024), Call("test", 60))
