"""Who gets memory, who waits for it, and who is told that there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from time import monotonic, sleep

import pytest

from shared.bounds import Bound
from shared.call import Call
from shared.errors import AtCapacity, OutOfMemory
from shared.memory import Memory

MB = 1_000_000
LIMIT = 1000 * MB
USABLE = 940 * MB


class Machine:
    """A machine of a gigabyte, of which so much is taken as is said."""

    def __init__(self, used: int = 0) -> None:
        self.used = used
        self.memory = Memory([Bound("the test", LIMIT, lambda: self.used)])


def call(memory: Memory | None = None, timeout_s: float = 10) -> Call:
    made = Call("test", timeout_s)
    made.share = memory.share() if memory is not None else None
    return made


@contextmanager
def held(memory: Memory, needed: int, timeout_s: float = 10) -> Iterator[Future[None]]:
    """A request in a thread of its own that wants so much and holds it to the end of the block."""
    go, pool = Event(), ThreadPoolExecutor(1)

    def work() -> None:
        with memory.reserved(needed, call(memory, timeout_s)):
            go.wait(10)

    try:
        yield pool.submit(work)
    finally:
        go.set()
        pool.shutdown()


def until(true: Callable[[], bool]) -> None:
    ends_at = monotonic() + 5
    while not true():
        assert monotonic() < ends_at
        sleep(0.005)


def test_without_a_limit_everything_fits() -> None:
    memory = Memory()
    with memory.reserved(1 << 50, call(memory)):
        assert memory.budget_bytes() > 1 << 60


def test_what_one_request_could_have_is_the_limit_less_what_is_taken_anyway() -> None:
    memory = Machine(used=140 * MB).memory
    assert memory.budget_bytes() == pytest.approx(800 * MB, rel=0.03)


def test_what_never_fits_is_refused_with_the_figures() -> None:
    memory = Machine(used=140 * MB).memory
    with pytest.raises(OutOfMemory, match=r"needs 900 MB .* more than 800 MB") as raised:
        memory.reserved(900 * MB, call()).__enter__()
    assert raised.value.figures == {"limit": 800, "found": 900}


def test_what_does_not_fit_in_time_is_told_to_come_back() -> None:
    memory = Machine().memory
    begin = monotonic()
    with held(memory, 700 * MB) as other:
        until(lambda: not memory.has_room(700 * MB))
        with pytest.raises(AtCapacity) as raised, memory.reserved(500 * MB, call(timeout_s=0.8)):
            pass
        assert not other.done()
    assert 0.3 < monotonic() - begin < 0.79
    assert (raised.value.figures, raised.value.retry_after_s) == ({"limit": 240, "found": 500}, 2)


def test_who_waits_goes_on_as_soon_as_there_is_room() -> None:
    memory = Machine().memory
    with held(memory, 700 * MB):
        until(lambda: not memory.has_room(700 * MB))
        waiting = held(memory, 500 * MB)
        later = waiting.__enter__()
    until(lambda: not memory.has_room(500 * MB))
    waiting.__exit__(None, None, None)
    assert later.exception() is None
    assert memory.has_room(USABLE)


def test_a_failure_gives_everything_back() -> None:
    memory = Machine().memory
    with pytest.raises(KeyError), memory.reserved(900 * MB, call(memory)):
        raise KeyError
    assert memory.has_room(USABLE)


def test_what_a_reply_takes_stays_counted_until_it_is_released() -> None:
    memory, one = Machine().memory, call()
    one.share = memory.share()
    with memory.reserved(900 * MB, one) as reservation:
        reservation.leaves_bytes = 100 * MB
    assert memory.has_room(840 * MB)
    assert not memory.has_room(850 * MB)
    one.share.release()
    assert memory.has_room(USABLE)


def test_a_share_that_is_forgotten_is_given_back() -> None:
    memory, one = Machine().memory, call()
    one.share = memory.share()
    one.share.hold(500 * MB, one)
    del one
    assert memory.has_room(USABLE)


def test_what_a_request_holds_already_counts_against_what_it_may_still_have() -> None:
    memory, one = Machine().memory, call()
    one.share = memory.share()
    one.share.hold(100 * MB, one)
    assert memory.budget_bytes(one) == pytest.approx(840 * MB, rel=0.03)
    with pytest.raises(OutOfMemory), memory.reserved(850 * MB, one):
        pass
    assert one.share.held_bytes == 100 * MB


def test_more_taken_than_was_foreseen_leaves_less_for_the_others() -> None:
    machine = Machine(used=100 * MB)
    with held(machine.memory, 200 * MB):
        until(lambda: not machine.memory.has_room(700 * MB))
        machine.used = 500 * MB
        sleep(0.01)
        machine.memory.budget_bytes()
        assert machine.memory.has_room(440 * MB)
        assert not machine.memory.has_room(450 * MB)


def test_nothing_under_way_shows_anew_what_is_taken_anyway() -> None:
    machine = Machine(used=500 * MB)
    machine.used = 100 * MB
    assert machine.memory.budget_bytes() == pytest.approx(840 * MB, rel=0.03)


def test_a_small_request_does_not_wait_behind_a_large_one() -> None:
    memory = Machine().memory
    with held(memory, 600 * MB), held(memory, 600 * MB) as large:
        until(lambda: len(memory._queue) == 1)
        with memory.reserved(100 * MB, call(memory)):
            assert not large.done()


def test_small_requests_do_not_keep_a_large_one_waiting_for_ever() -> None:
    memory, ended = Machine().memory, Event()

    def small() -> None:
        while not ended.is_set():
            with memory.reserved(300 * MB, call(memory, 60)):
                sleep(0.02)

    with ThreadPoolExecutor(6) as pool:
        crowd = [pool.submit(small) for _ in range(6)]
        begin = monotonic()
        with memory.reserved(900 * MB, call(memory, 60)):
            waited_s = monotonic() - begin
        ended.set()
    assert [each.exception() for each in crowd] == [None] * 6
    assert waited_s < 5


def test_who_holds_a_body_may_go_before_a_large_one_however_long_that_waits() -> None:
    memory = Machine().memory
    early = call(memory)
    assert early.share is not None
    early.share.hold(50 * MB, early)
    with held(memory, 600 * MB), held(memory, 500 * MB, timeout_s=20):
        until(lambda: len(memory._queue) == 1)
        sleep(2.1)
        with memory.reserved(100 * MB, early):
            pass
        with pytest.raises(AtCapacity), memory.reserved(100 * MB, call(memory, 0.2)):
            pass


def test_opening_a_model_goes_first_and_stays() -> None:
    memory = Machine().memory
    with memory.settled(300 * MB, 100 * MB):
        assert not memory.has_room(700 * MB)
    assert memory.has_room(840 * MB)
    assert not memory.has_room(850 * MB)


def test_a_model_that_cannot_be_opened_takes_nothing() -> None:
    memory = Machine().memory
    with pytest.raises(KeyError), memory.settled(300 * MB, 100 * MB):
        raise KeyError
    assert memory.has_room(USABLE)


def test_what_is_promised_is_taken() -> None:
    memory = Memory([Bound("the test", LIMIT, lambda: 0)], lambda: 140 * MB)
    assert memory.budget_bytes() == pytest.approx(800 * MB, rel=0.03)


def test_never_more_granted_than_there_is() -> None:
    memory, most = Machine().memory, 0

    def work(number: int) -> None:
        nonlocal most
        one = call(memory, 60)
        assert one.share is not None
        for turn in range(10):
            one.share.hold(20 * MB, one)
            with memory.reserved((50 + 130 * ((number + turn) % 6)) * MB, one):
                most = max(most, memory._granted_bytes)
                sleep(0.001)
            one.share.release()

    with ThreadPoolExecutor(12) as pool:
        for each in [pool.submit(work, number) for number in range(12)]:
            each.result()
    assert most <= USABLE
    assert memory.has_room(USABLE)
