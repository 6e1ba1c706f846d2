from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Event, Lock
from time import monotonic, sleep

import pytest

from shared.admission import Admission
from shared.call import Call
from shared.errors import AtCapacity, TooManyRequests


def call(timeout_s: float = 10) -> Call:
    return Call("test", timeout_s)


class Crowd:
    """Requests that hold a slot until they are let go."""

    def __init__(self, admission: Admission, count: int, timeout_s: float = 10) -> None:
        self.go = Event()
        self._pool = ThreadPoolExecutor(count)
        self.pending: list[Future[None]] = [self._pool.submit(self._work, admission, timeout_s) for _ in range(count)]
        ends_at = monotonic() + 5
        while sum(admission.load) < count and monotonic() < ends_at:
            sleep(0.005)

    def _work(self, admission: Admission, timeout_s: float) -> None:
        with admission.slot(call(timeout_s)):
            self.go.wait(10)

    def leave(self) -> None:
        self.go.set()
        self._pool.shutdown()


def test_a_slot_is_given_back_even_when_the_work_fails() -> None:
    admission = Admission(1)
    for _ in range(3):
        with pytest.raises(KeyError), admission.slot(call()):
            raise KeyError
    assert admission.load == (0, 0)


def test_the_queue_holds_four_times_the_slots_and_no_more() -> None:
    admission = Admission(2)
    crowd = Crowd(admission, 10)
    assert admission.load == (2, 8)
    assert admission.full
    with pytest.raises(TooManyRequests) as raised, admission.slot(call()):
        pass
    assert raised.value.retry_after_s
    crowd.leave()
    assert [each.exception() for each in crowd.pending] == [None] * 10
    assert admission.load == (0, 0)


def test_who_waits_for_half_of_the_time_gives_up() -> None:
    admission = Admission(1)
    crowd = Crowd(admission, 1)
    begin = monotonic()
    with pytest.raises(AtCapacity), admission.slot(call(0.4)):
        pass
    assert 0.15 < monotonic() - begin < 0.39
    assert admission.load == (1, 0)
    crowd.leave()


def test_a_call_whose_time_is_over_does_not_wait() -> None:
    admission = Admission(1)
    crowd = Crowd(admission, 1)
    with pytest.raises(AtCapacity), admission.slot(call(-1)):
        pass
    crowd.leave()


def test_never_more_at_work_than_slots_and_nobody_is_forgotten() -> None:
    admission, lock, most, at_work = Admission(3), Lock(), 0, 0
    start = Barrier(15)

    def work() -> None:
        nonlocal most, at_work
        start.wait()
        for _ in range(20):
            with admission.slot(call()):
                with lock:
                    at_work += 1
                    most = max(most, at_work)
                sleep(0.0002)
                with lock:
                    at_work -= 1

    with ThreadPoolExecutor(15) as pool:
        for each in [pool.submit(work) for _ in range(15)]:
            each.result()
    assert (most, admission.load) == (3, (0, 0))


def test_a_slot_goes_to_who_has_waited_longest_and_not_to_a_newcomer() -> None:
    admission = Admission(1)
    ended = Event()

    def hog() -> int:
        turns = 0
        while not ended.is_set() and turns < 100_000:
            with admission.slot(call()):
                turns += 1
        return turns

    with ThreadPoolExecutor(1) as pool:
        hogging = pool.submit(hog)
        begin = monotonic()
        for _ in range(20):
            with admission.slot(call(10)):
                pass
        waited_s = monotonic() - begin
        ended.set()
        assert hogging.result() > 0
    assert waited_s < 4
