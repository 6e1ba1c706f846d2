"""How much memory this process may have, and which requests share it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, RLock
from time import monotonic
from typing import TYPE_CHECKING

from shared.errors import AtCapacity, OutOfMemory

if TYPE_CHECKING:
    from pathlib import Path

    from shared.bounds import Bound
    from shared.call import Call

_USABLE = 0.94  # of a limit: the code's own pages, sockets and what an allocator has lost between blocks need some, too
_PLANNED = 0.98  # of what one request could have: what is free has moved a little until it asks for it
_LONGEST_WAIT = 0.5  # of the request's time: what is left must be enough to do the work
_LONGEST_PATIENCE_S = 2.0  # for which those that come later and need less may go first
_LOOK_AGAIN_S, _LOOK_HOLDS_S = 0.25, 0.005
_REST_S = 2.0  # after which arenas have given back what the last requests had
_OPENING_WAIT_S = 600.0
_RETRY_AFTER_S = 2
_MB = 1e6


class Share:
    """What one request holds of the memory, by what was foreseen for it. Safe to release more than once."""

    def __init__(self, memory: Memory, *, urgent: bool = False) -> None:
        self._memory = memory
        self.urgent = urgent
        self.held_bytes = 0

    def __del__(self) -> None:
        self.release()

    def hold(self, needed_bytes: int, call: Call) -> None:
        """Waits until the request may have so much in all. Raises OutOfMemory where it never could have, AtCapacity
        where it could not in time; it then holds what it held before."""
        self._memory._take(self, needed_bytes, call.remaining_s * _LONGEST_WAIT)

    def keep(self, held_bytes: int) -> None:
        """From now on the request has so much, whatever was foreseen."""
        self._memory._set(self, held_bytes)

    def release(self) -> None:
        self.keep(0)


class Reservation:
    """What is set aside while a part of a request's work lasts; `leaves_bytes` of it are still there afterwards."""

    def __init__(self) -> None:
        self.leaves_bytes = 0


class _Waiter:
    def __init__(self, share: Share, more_bytes: int) -> None:
        self.share = share
        self.more_bytes = more_bytes
        self.turn = Event()
        self._since_s = monotonic()

    @property
    def begun(self) -> bool:
        """Whether it holds something already, which comes free only when it goes on; or others do who wait for it."""
        return self.share.urgent or self.share.held_bytes > 0

    @property
    def patient(self) -> bool:
        return monotonic() < self._since_s + _LONGEST_PATIENCE_S


class Memory:
    """A ledger of what the process holds anyway (the base) and of what each request under way was granted: together
    they stay under every limit.

    The base is what is measured while nothing is under way. It is raised when more is taken than was foreseen, so that
    a wrong forecast costs later requests some room and not the process its life. What never fits is judged by the least
    that the base has been since it was last measured at rest.

    `opened` are the folders whose networks the process holds.

    First come, first served; who needs less than what is free may go before those that wait for more, but not for
    longer than two seconds, after which only requests that hold something already still may.
    """

    def __init__(self, bounds: Sequence[Bound] = (), promised: Callable[[], int] = lambda: 0) -> None:
        self._bounds = tuple(bounds)
        self._promised = promised
        self._lock = RLock()  # a share that is forgotten is released wherever Python finds that out
        self._queue: deque[_Waiter] = deque()
        self.opened: set[Path] = set()
        self._granted_bytes = 0
        self._released_at = self._looked_at = 0.0
        self._bases = self._measured()
        self._least_bases = self._bases

    @property
    def limited(self) -> bool:
        return bool(self._bounds)

    def share(self) -> Share:
        """The account of one request."""
        return Share(self)

    def budget_bytes(self, call: Call | None = None) -> int:
        """The most that one request alone could have, beside what it holds already."""
        if not self.limited:
            return sys.maxsize
        held = call.share.held_bytes if call is not None and call.share is not None else 0
        with self._lock:
            self._look()
            return max(0, int((self._alone_bytes() - held) * _PLANNED))

    @contextmanager
    def reserved(self, needed_bytes: int, call: Call) -> Iterator[Reservation]:
        """Waits until so much is free beside what the call holds already, and gives it back at the end. Raises
        OutOfMemory where it never will be, AtCapacity where it was not in time."""
        share = call.share or Share(self)
        before = share.held_bytes
        share.hold(before + needed_bytes, call)
        reservation = Reservation()
        try:
            yield reservation
        finally:
            share.keep(before + (reservation.leaves_bytes if share is call.share else 0))

    @contextmanager
    def settled(self, needed_bytes: int, stays_bytes: int, wait_s: float = _OPENING_WAIT_S) -> Iterator[None]:
        """`reserved` for what all requests are in need of; `stays_bytes` become a part of what the process holds anyway
        where it comes to a good end. It goes before requests that wait for more than is free."""
        share = Share(self, urgent=True)
        self._take(share, needed_bytes, wait_s)
        try:
            yield
            with self._lock:
                self._bases = [base + stays_bytes for base in self._bases]
                least = [base + stays_bytes for base in self._least_bases]
                self._least_bases = self._corrected(least, self._measured())
        finally:
            share.release()

    def has_room(self, needed_bytes: int) -> bool:
        """Whether so much is free now."""
        with self._lock:
            return self._free_bytes() >= needed_bytes

    def _take(self, share: Share, needed_bytes: int, wait_s: float) -> None:
        more = needed_bytes - share.held_bytes
        if more <= 0 or not self.limited:
            self._set(share, needed_bytes)
            return
        waiter = _Waiter(share, more)
        with self._lock:
            self._look()
            self._check_fits_alone(needed_bytes)
            if self._free_bytes() >= more and (waiter.begun or all(other.patient for other in self._queue)):
                self._grant(waiter)
                return
            self._queue.append(waiter)
        try:
            self._wait(waiter, monotonic() + wait_s)
        except BaseException:
            with self._lock:
                if waiter in self._queue:
                    self._queue.remove(waiter)
                self._let_in()
            raise

    def _wait(self, waiter: _Waiter, ends_at: float) -> None:
        while not waiter.turn.wait(min(_LOOK_AGAIN_S, max(0.0, ends_at - monotonic()))):
            with self._lock:
                self._let_in()
                if waiter.turn.is_set():
                    return
                if monotonic() >= ends_at:
                    raise self._at_capacity(waiter)

    def _set(self, share: Share, held_bytes: int) -> None:
        with self._lock:
            self._granted_bytes += held_bytes - share.held_bytes
            share.held_bytes = held_bytes
            self._released_at = monotonic()
            if self._queue:
                self._let_in()

    def _grant(self, waiter: _Waiter) -> None:
        self._granted_bytes += waiter.more_bytes
        waiter.share.held_bytes += waiter.more_bytes
        waiter.turn.set()

    def _let_in(self) -> None:
        """Under the lock: every waiting request that may go now."""
        self._look()
        is_blocked = False
        for waiter in list(self._queue):
            if self._free_bytes() >= waiter.more_bytes and (waiter.begun or not is_blocked):
                self._queue.remove(waiter)
                self._grant(waiter)
            else:
                is_blocked = is_blocked or not waiter.patient

    def _look(self) -> None:
        """Under the lock: the base, corrected by what is measured."""
        if monotonic() < self._looked_at + _LOOK_HOLDS_S:
            return
        self._looked_at = monotonic()
        found = self._measured()
        self._bases = self._corrected(self._bases, found)
        self._least_bases = [min(pair) for pair in zip(self._least_bases, found, strict=True)]
        if self._granted_bytes == 0 and monotonic() > self._released_at + _REST_S:
            self._least_bases = found

    def _corrected(self, bases: Sequence[int], found: Sequence[int]) -> list[int]:
        """The base is in all that is taken, which is no more than the base and what was granted."""
        pairs = zip(bases, found, strict=True)
        return [max(each - self._granted_bytes, min(base, each)) for base, each in pairs]

    def _measured(self) -> list[int]:
        promised = self._promised()
        return [bound.used_bytes() + promised for bound in self._bounds]

    def _free_bytes(self) -> int:
        return self._room(self._bases) - self._granted_bytes

    def _alone_bytes(self) -> int:
        return self._room(self._least_bases)

    def _room(self, bases: Sequence[int]) -> int:
        rooms = (int(bound.limit_bytes * _USABLE) - base for bound, base in zip(self._bounds, bases, strict=True))
        return min(rooms, default=sys.maxsize)

    def _check_fits_alone(self, needed_bytes: int) -> None:
        limit_mb, needed_mb = max(0, round(self._alone_bytes() / _MB)), round(needed_bytes / _MB)
        if needed_bytes > self._alone_bytes():
            raise OutOfMemory(
                f"this request needs {needed_mb} MB of memory and no request can have more than {limit_mb} MB here",
                limit=limit_mb,
                found=needed_mb,
            )

    def _at_capacity(self, waiter: _Waiter) -> AtCapacity:
        free_mb, needed_mb = max(0, round(self._free_bytes() / _MB)), round(waiter.more_bytes / _MB)
        return AtCapacity(
            f"this request needs {needed_mb} MB of memory, of which others left {free_mb} MB while it could wait",
            retry_after_s=_RETRY_AFTER_S,
            limit=free_mb,
            found=needed_mb,
        )
