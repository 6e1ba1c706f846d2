"""How long a question to a model server may take, and when it is asked again."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from shared.errors import ServerBusy, ServerTimeout, ServerUnreachable

if TYPE_CHECKING:
    from shared.call import Call

OPEN_LIMIT_S = 2.0
"""The time for finding out what a model server has: it answers at once or is not there."""
READY_LIMIT_S = 1.0
RETRY_AFTER_S = 2
"""When to come back, where the model server has not said."""
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 1.0
T = TypeVar("T")


class TimeLimit:
    """The time for one question and for asking it again: `limit_s`, or what is left of the request's own. Raises
    DeadlineExceeded where nothing is."""

    def __init__(self, call: Call, limit_s: float) -> None:
        call.check()
        left_s = call.remaining_s
        self.limit_s = min(limit_s, left_s)
        self._said_s = limit_s if limit_s <= left_s else call.timeout_s
        self._ends_at = monotonic() + self.limit_s

    @property
    def left_s(self) -> float:
        return self._ends_at - monotonic()

    def remaining_s(self) -> float:
        """What is left, more than zero. Raises ServerTimeout."""
        left_s = self.left_s
        if left_s <= 0:
            raise self.over()
        return left_s

    def over(self) -> ServerTimeout:
        return ServerTimeout(f"the model server did not answer within {self._said_s:g} s", limit=self._said_s)


def asked_again(ask: Callable[[], T], retries: int, limit: TimeLimit) -> T:
    """What `ask` gives, tried up to `retries` times more where the server was not reached or said that it is busy.

    It waits in between: at random, up to a limit that doubles (full jitter, so that many callers do not come back at
    once), beside as long as the server asks for. What would wait too long, or past the time, is raised at once.
    """
    tried = 0
    while True:
        try:
            return ask()
        except (ServerUnreachable, ServerBusy) as failure:
            asked_s = failure.retry_after_s or 0
            wait_s = asked_s + random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**tried))
            failure.retry_after_s = asked_s or RETRY_AFTER_S
            if tried >= retries or asked_s > _LONGEST_WAIT_S or wait_s >= limit.left_s:
                raise
            tried += 1
        sleep(wait_s)
