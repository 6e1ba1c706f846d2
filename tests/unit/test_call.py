from __future__ import annotations

from time import sleep

import pytest

from shared.call import Call
from shared.errors import DeadlineExceeded


def test_stages_are_timed_in_the_order_that_they_end() -> None:
    call = Call("a", 10)
    with call.stage("outer"), call.stage("inner"):
        sleep(0.01)
    assert list(call.stages_ms) == ["inner", "outer"]
    assert 10 <= call.stages_ms["inner"] <= call.stages_ms["outer"]


def test_a_stage_that_comes_twice_adds_up() -> None:
    call = Call("a", 10)
    for _ in range(2):
        with call.stage("tile"):
            sleep(0.005)
    assert call.stages_ms["tile"] >= 10


def test_a_stage_that_ends_too_late_fails_the_call() -> None:
    call = Call("a", 0.01)
    with pytest.raises(DeadlineExceeded, match=r"longer than its 0.01 s"), call.stage("infer"):
        sleep(0.02)
    assert "infer" in call.stages_ms


def test_an_error_inside_a_stage_is_not_hidden_by_the_deadline() -> None:
    call = Call("a", -1)
    with pytest.raises(KeyError), call.stage("infer"):
        raise KeyError


def test_a_part_has_its_own_stages_and_the_same_end() -> None:
    whole = Call("a", 10)
    sleep(0.01)
    part = whole.part()
    with part.stage("infer"):
        pass
    assert (part.request_id, part.timeout_s, whole.stages_ms) == ("a", 10, {})
    assert part.remaining_s == pytest.approx(whole.remaining_s, abs=0.005)
    assert part.elapsed_ms < whole.elapsed_ms
