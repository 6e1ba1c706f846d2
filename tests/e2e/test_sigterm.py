"""SIGTERM, which every cloud sends before it takes an instance away: what was begun is answered, then all is gone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

import requests

from tests import servers
from tests.servers import EVERY_DOOR, Server
from tests.uploads import Upload

_CLIENTS = 8
_LIMIT_S = 2.0
_TIMEOUT_S = 30


def _time_to_end(server: Server, limit_s: float) -> float:
    """Seconds from SIGTERM, sent here, to the end of the process and of those that it started."""
    pids = server.pids
    begin = monotonic()
    server.terminate()
    assert server.wait(limit_s) == 0, server.log
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    return monotonic() - begin


def _finish_under_sigterm(server: Server, body: bytes) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(_CLIENTS) as pool:
        uploads = [stack.enter_context(Upload(server.port, body)) for _ in range(_CLIENTS)]
        pids = server.pids
        begin = monotonic()
        server.terminate()
        sleep(0.1)  # the signal is there before the rest of the bodies
        replies = list(pool.map(Upload.finish, uploads))
        ended = server.wait(_LIMIT_S - (monotonic() - begin))
        assert [(status, reply["image"]["width"]) for status, reply in replies] == [(200, 4000)] * _CLIENTS
        assert ended == 0, server.log
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


@EVERY_DOOR
def test_requests_in_flight_are_answered_and_the_process_goes(door: str, large_photo: bytes) -> None:
    with servers.DOORS[door]() as server:
        requests.post(f"{server.url}/predict", data=large_photo, timeout=_TIMEOUT_S).raise_for_status()
        _finish_under_sigterm(server, large_photo)


@EVERY_DOOR
def test_requests_in_flight_are_answered_while_the_model_is_cold(door: str, large_photo: bytes) -> None:
    with servers.DOORS[door]() as server:
        _finish_under_sigterm(server, large_photo)


@EVERY_DOOR
def test_the_process_goes_while_the_model_is_loaded_behind(door: str) -> None:
    with servers.DOORS[door]() as server:
        assert requests.get(f"{server.url}/ready", timeout=_TIMEOUT_S).json()["state"] in ("cold", "warming")
        assert _time_to_end(server, _LIMIT_S) < _LIMIT_S


@EVERY_DOOR
def test_the_process_goes_with_the_model_loaded(door: str, photo: bytes) -> None:
    with servers.DOORS[door]() as server:
        requests.post(f"{server.url}/predict", data=photo, timeout=_TIMEOUT_S).raise_for_status()
        assert _time_to_end(server, _LIMIT_S) < _LIMIT_S


@EVERY_DOOR
def test_a_kept_connection_does_not_hold_the_process(door: str) -> None:
    with servers.DOORS[door]() as server, requests.Session() as kept:
        kept.get(f"{server.url}/health", timeout=_TIMEOUT_S).raise_for_status()
        assert _time_to_end(server, _LIMIT_S) < _LIMIT_S
