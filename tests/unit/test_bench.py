"""The statistics and the table of the benchmark; that it measures is seen by running it."""

from __future__ import annotations

from functools import partial

import pytest

from tests.bench import report
from tests.bench.arms import CONTROL, Sample, interleaved
from tests.bench.statistics import compared, spread, verdict


def walls(*times_ms: float) -> list[Sample]:
    return [Sample(wall_ms=ms) for ms in times_ms]


def test_rounds_are_compared_pairwise() -> None:
    assert compared([2.0, 30.0], [1.0, 10.0], "ratio") == [2.0, 3.0]


def test_a_difference_may_be_against_nothing() -> None:
    assert compared([15.0], [0.0], "difference") == [15.0]


def test_arms_of_unequal_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compared([1.0, 2.0], [1.0], "ratio")


def test_the_spread_is_half_the_distance_of_the_quartiles() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == 2.0


def test_one_round_has_no_spread() -> None:
    assert spread([1.0]) == 0.0


@pytest.mark.parametrize(
    ("found", "control", "expected"),
    [(1.10, 1.0, "reached"), (1.11, 1.0, "missed"), (1.0, 1.06, "noisy"), (1.0, 0.94, "noisy"), (1.2, 1.04, "missed")],
)
def test_a_target_is_judged_only_where_an_arm_equals_itself(found: float, control: float, expected: str) -> None:
    assert verdict(found, 1.10, control) == expected


def test_a_row_without_a_target_is_for_scale() -> None:
    assert verdict(3.0, None, 1.0) == "for scale"


def test_one_slow_round_does_not_move_the_ratio() -> None:
    samples = {"ours": walls(2, 2, 20), "ours" + CONTROL: walls(2, 2, 20), "theirs": walls(1, 1, 10)}
    assert report.row("speed", samples, "ours", "theirs", "wall_ms").compared == 2.0


def test_a_missing_anchor_is_a_row_and_is_said_again_below_the_table() -> None:
    row = report.row("speed", {"ours": walls(1), "ours" + CONTROL: walls(1)}, "ours", "cv2", "wall_ms", at_most=1.1)
    table = report.text([row])
    assert row.verdict == "missing"
    assert "MISSING, so not compared: cv2" in table


def order_of_arms(rounds: int) -> list[str]:
    """The names of three arms in the order that they ran, the uncounted round first."""
    done: list[str] = []

    def arm(name: str) -> Sample:
        done.append(name)
        return Sample()

    interleaved({name: partial(arm, name) for name in "abc"}, rounds)
    return done


def test_every_arm_runs_once_a_round_after_one_that_is_not_counted() -> None:
    done = order_of_arms(4)
    assert [set(done[start : start + 3]) for start in range(0, 15, 3)] == [{"a", "b", "c"}] * 5


def test_the_uncounted_round_leaves_no_sample() -> None:
    assert len(interleaved({"a": Sample}, 4)["a"]) == 4


def test_the_order_of_arms_changes_between_rounds() -> None:
    done = order_of_arms(20)
    assert len({tuple(done[start : start + 3]) for start in range(0, 63, 3)}) > 1
