"""How many pictures are worked on at once, how many wait, and who is turned away."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock

from shared.call import Call
from shared.errors import AtCapacity, TooManyRequests
from shared.settings import WAITING_PER_SLOT

_LONGEST_WAIT = 0.5  # of the request's time: what is left must be enough to do the work
_RETRY_AFTER_S = 1


class Admission:
    """At most `slots` requests at work and four times as many waiting, first come, first served; any more are turned
    away. A slot that is given back goes straight to the longest waiting request, so that no newcomer can take it."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._at_work = 0
        self._queue: deque[Event] = deque()
        self._lock = Lock()

    @property
    def full(self) -> bool:
        return self._at_work >= self._slots and len(self._queue) >= self._slots * WAITING_PER_SLOT

    @property
    def load(self) -> tuple[int, int]:
        """How many are at work, and how many wait."""
        return self._at_work, len(self._queue)

    @contextmanager
    def slot(self, call: Call) -> Iterator[None]:
        """Raises TooManyRequests where the queue is full, AtCapacity where waiting took too long."""
        turn = self._enter()
        if turn is not None and not turn.wait(max(0.0, call.remaining_s * _LONGEST_WAIT)):
            self._give_up(turn)
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> Event | None:
        """None where a slot is free, else what will be set when it is this request's turn."""
        with self._lock:
            if self._at_work < self._slots:
                self._at_work += 1
                return None
            if self.full:
                raise TooManyRequests(
                    f"{self._slots} requests are at work and {len(self._queue)} wait",
                    retry_after_s=_RETRY_AFTER_S,
                    limit=self._slots,
                )
            turn = Event()
            self._queue.append(turn)
            return turn

    def _give_up(self, turn: Event) -> None:
        with self._lock:
            if turn.is_set():  # it came in the last moment
                return
            self._queue.remove(turn)
        raise AtCapacity("no request ended while this one could wait", retry_after_s=_RETRY_AFTER_S, limit=self._slots)

    def _leave(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._at_work -= 1
