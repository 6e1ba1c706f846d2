"""How many pictures are worked on at once, how many wait, and who is turned away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from shared.call import Call
from shared.errors import AtCapacity, TooManyRequests

_WAITING_PER_SLOT = 4
_LONGEST_WAIT = 0.5  # of the request's time: what is left must be enough to do the work
_RETRY_AFTER_S = 1


class Admission:
    """At most `slots` requests at work and four times as many waiting; any more are turned away."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._at_work = 0
        self._waiting = 0
        self._changed = Condition()

    @property
    def full(self) -> bool:
        return self._at_work >= self._slots and self._waiting >= self._slots * _WAITING_PER_SLOT

    @property
    def load(self) -> tuple[int, int]:
        """How many are at work, and how many wait."""
        return self._at_work, self._waiting

    @contextmanager
    def slot(self, call: Call) -> Iterator[None]:
        """Raises TooManyRequests where the queue is full, AtCapacity where waiting took too long."""
        self._enter(call)
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify()

    def _enter(self, call: Call) -> None:
        with self._changed:
            if self._at_work < self._slots and not self._waiting:
                self._at_work += 1
                return
            if self.full:
                raise TooManyRequests(
                    f"{self._slots} requests are at work and {self._waiting} wait",
                    retry_after_s=_RETRY_AFTER_S,
                    limit=self._slots,
                )
            self._waiting += 1
            try:
                free = self._changed.wait_for(
                    lambda: self._at_work < self._slots, timeout=call.remaining_s * _LONGEST_WAIT
                )
            finally:
                self._waiting -= 1
            if not free:
                raise AtCapacity(
                    "no request ended while this one could wait", retry_after_s=_RETRY_AFTER_S, limit=self._slots
                )
            self._at_work += 1
