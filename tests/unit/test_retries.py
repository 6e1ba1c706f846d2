"""When a model server is asked again, and how long that may take."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pytest

from shared.call import Call
from shared.errors import DeadlineExceeded, Failure, ServerBusy, ServerFailed, ServerTimeout, ServerUnreachable
from shared.retries import RETRY_AFTER_S, TimeLimit, asked_again


class Server:
    """Fails as often as it is told, then answers."""

    def __init__(self, times: int, failure: Callable[[], Failure]) -> None:
        self.asked = 0
        self._times = times
        self._failure = failure

    def ask(self) -> str:
        self.asked += 1
        if self.asked <= self._times:
            raise self._failure()
        return "answer"


def unreachable() -> Failure:
    return ServerUnreachable("gone")


def busy(retry_after_s: int | None = None) -> Callable[[], Failure]:
    return lambda: ServerBusy("busy", retry_after_s=retry_after_s)


def limit(seconds: float = 10) -> TimeLimit:
    return TimeLimit(Call("test", 60), seconds)


@pytest.mark.parametrize("failure", [unreachable, busy(), busy(0)])
def test_a_server_that_is_not_reached_or_busy_is_asked_again(failure: Callable[[], Failure]) -> None:
    server = Server(2, failure)
    assert asked_again(server.ask, 2, limit()) == "answer"


def test_it_is_asked_no_more_often_than_told() -> None:
    server = Server(9, unreachable)
    with pytest.raises(ServerUnreachable):
        asked_again(server.ask, 2, limit())
    assert server.asked == 3


def test_a_server_that_answers_wrongly_is_not_asked_again() -> None:
    server = Server(1, lambda: ServerFailed("wrong"))
    with pytest.raises(ServerFailed):
        asked_again(server.ask, 2, limit())
    assert server.asked == 1


def test_a_second_is_waited_for_where_the_server_asks_for_it() -> None:
    begin = monotonic()
    asked_again(Server(1, busy(1)).ask, 1, limit())
    assert 1 <= monotonic() - begin < 1.5


def test_a_long_wait_is_passed_on_at_once() -> None:
    server = Server(1, busy(30))
    with pytest.raises(ServerBusy) as caught:
        asked_again(server.ask, 2, limit())
    assert (server.asked, caught.value.retry_after_s) == (1, 30)


def test_a_wait_past_the_time_is_not_begun() -> None:
    begin = monotonic()
    with pytest.raises(ServerBusy):
        asked_again(Server(9, busy(1)).ask, 9, limit(0.5))
    assert monotonic() - begin < 0.4


def test_who_is_sent_away_is_told_when_to_come_back() -> None:
    with pytest.raises(ServerUnreachable) as caught:
        asked_again(Server(1, unreachable).ask, 0, limit())
    assert caught.value.retry_after_s == RETRY_AFTER_S


def test_waits_are_short_and_differ() -> None:
    begin = monotonic()
    asked_again(Server(4, unreachable).ask, 4, limit())
    assert monotonic() - begin < 0.1 + 0.2 + 0.4 + 0.8


def test_the_limit_is_the_shorter_of_the_two() -> None:
    assert TimeLimit(Call("test", 5), 30).limit_s <= 5
    assert TimeLimit(Call("test", 60), 30).limit_s == 30


def test_a_request_whose_time_is_over_asks_nobody() -> None:
    with pytest.raises(DeadlineExceeded):
        TimeLimit(Call("test", 0), 30)


def test_the_server_is_late_once_the_limit_is_over() -> None:
    with pytest.raises(ServerTimeout, match=r"within 0 s"):
        TimeLimit(Call("test", 5), 0).remaining_s()
