"""HTTP to a model server that is well, slow, broken, mad or gone: always an answer or the right failure, in time."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from time import monotonic, time

import pytest

from shared.call import Call
from shared.errors import (
    DeadlineExceeded,
    ServerBusy,
    ServerFailed,
    ServerTimeout,
    ServerUnreachable,
)
from shared.server_connections import Piece
from shared.server_http import Reply, ServerHttp
from tests import oip_server as oip
from tests.hostile_server import self_signed
from tests.oip_server import Fault, OipServer
from tests.servers import ROOT, environ, free_port

MARGIN_S = 0.3


@pytest.fixture
def server() -> Iterator[OipServer]:
    with OipServer() as started:
        yield started


@pytest.fixture
def http(server: OipServer) -> Iterator[ServerHttp]:
    yield from client(server.url)


def client(url: str, *, retries: int = 0, limit_s: float = 5, token: str | None = None) -> Iterator[ServerHttp]:
    made = ServerHttp(url, token=token, retries=retries, limit_s=limit_s)
    yield made
    made.close()


def ask(http: ServerHttp, timeout_s: float = 5) -> Reply:
    return http.request("GET", "/v2", Call("test", timeout_s))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_reply_comes_with_status_headers_and_body(http: ServerHttp) -> None:
    reply = ask(http)
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(reply.body)))
    assert reply.body.startswith(b'{"name"')


def test_a_status_other_than_503_is_the_callers_to_judge(server: OipServer, http: ServerHttp) -> None:
    server.fault = oip.failing(418, "a teapot")
    assert ask(http).status == 418


def test_one_connection_serves_one_request_after_the_other(server: OipServer, http: ServerHttp) -> None:
    for _ in range(20):
        ask(http)
    assert server.connections == 1


def test_threads_have_connections_of_their_own_and_leave_them_to_others(server: OipServer, http: ServerHttp) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: ask(http), range(200)))
    assert {reply.status for reply in replies} == {200}
    assert server.connections <= 8


def test_the_token_goes_with_every_request(server: OipServer) -> None:
    for http in client(server.url, token="secret"):
        ask(http)
    assert server.headers[0]["authorization"] == "Bearer secret"


def test_proxies_of_the_environment_are_not_used(http: ServerHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert ask(http).status == 200


def test_paths_are_below_that_of_the_url(server: OipServer) -> None:
    for http in client(f"{server.url}/some/where/"):
        ask(http)
    assert server.requests == ["GET /some/where/v2"]


SLOW = [oip.silence, oip.drip_headers, oip.drip_body, oip.drip_chunks, oip.endless_continue, oip.negative_chunk]


@pytest.mark.parametrize("fault", SLOW, ids=lambda fault: fault.__name__)
def test_a_server_that_is_too_slow_is_given_up_when_the_time_is_over(
    server: OipServer, http: ServerHttp, fault: Fault
) -> None:
    server.fault = fault
    begin = monotonic()
    with pytest.raises((ServerTimeout, ServerFailed) if fault is oip.negative_chunk else ServerTimeout):
        ask(http, timeout_s=0.4)
    assert monotonic() - begin < 0.4 + MARGIN_S


def test_a_server_that_reads_nothing_is_given_up_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for http in client(f"http://127.0.0.1:{listener.getsockname()[1]}", limit_s=0.4):
            begin = monotonic()
            with pytest.raises(ServerTimeout, match=r"within 0\.4 s") as caught:
                http.request("POST", "/v2", Call("test", 5), body=[memoryview(bytes(50_000_000))])
            assert monotonic() - begin < 0.4 + MARGIN_S
            assert caught.value.figures == {"limit": 0.4}


BROKEN = [
    oip.cut_in_headers, oip.cut_in_body, oip.reset_in_body, oip.hang_up, oip.reset, oip.garbage, oip.endless_headers,
    oip.lying_length, oip.unsized,
]  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: fault.__name__)
def test_an_answer_that_breaks_off_or_is_no_http_is_the_servers_failure(
    server: OipServer, http: ServerHttp, fault: Fault
) -> None:
    server.fault = fault
    with pytest.raises(ServerFailed):
        ask(http)


def test_an_answer_without_end_is_not_taken_in(
    server: OipServer, http: ServerHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.server_http.LARGEST_BODY_BYTES", 10_000_000)
    server.fault = oip.endless_body
    with pytest.raises(ServerFailed, match="too large"):
        ask(http)


def test_what_breaks_is_not_asked_again(server: OipServer) -> None:
    server.fault = oip.cut_in_body
    for http in client(server.url, retries=3):
        with pytest.raises(ServerFailed):
            ask(http)
    assert len(server.requests) == 1


def test_a_server_that_is_busy_is_asked_again(server: OipServer) -> None:
    def once(exchange: oip.Exchange) -> None:
        server.fault = None
        oip.busy(exchange)

    server.fault = once
    for http in client(server.url, retries=1):
        assert ask(http).status == 200


@pytest.mark.parametrize(("said", "told"), [("7", 7), ("0", 2), ("1000000", 3600)])
def test_when_to_come_back_is_passed_on(server: OipServer, http: ServerHttp, said: str, told: int) -> None:
    server.fault = oip.busy_until(said)
    with pytest.raises(ServerBusy) as caught:
        ask(http)
    assert caught.value.retry_after_s == told


def test_when_to_come_back_may_be_a_date(server: OipServer, http: ServerHttp) -> None:
    server.fault = oip.busy_until(formatdate(time() + 100, usegmt=True))
    with pytest.raises(ServerBusy) as caught:
        ask(http)
    assert 80 < (caught.value.retry_after_s or 0) <= 100


@pytest.mark.parametrize("said", ["soon", "", "-5", "Mon, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_is_a_moment(server: OipServer, http: ServerHttp, said: str) -> None:
    server.fault = oip.busy_until(said)
    with pytest.raises(ServerBusy) as caught:
        ask(http)
    assert caught.value.retry_after_s == 2


def test_nobody_there_is_unreachable_at_once() -> None:
    for http in client(f"http://127.0.0.1:{free_port()}", retries=2):
        begin = monotonic()
        with pytest.raises(ServerUnreachable) as caught:
            ask(http)
        assert monotonic() - begin < 1
        assert caught.value.retry_after_s
        assert "127.0.0.1" not in caught.value.message


def test_a_name_that_nobody_knows_is_unreachable() -> None:
    for http in client("http://nowhere.invalid"):
        with pytest.raises(ServerUnreachable):
            ask(http)


def test_a_server_that_takes_no_connection_is_unreachable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the queue is full
            for http in client(f"http://127.0.0.1:{port}"):
                begin = monotonic()
                with pytest.raises(ServerUnreachable):
                    ask(http, timeout_s=0.4)
                assert monotonic() - begin < 0.4 + MARGIN_S


def test_a_name_is_looked_up_anew_for_every_connection(server: OipServer) -> None:
    for http in client(f"http://localhost:{server.port}"):
        assert ask(http).status == 200
        http.close()
        assert ask(http).status == 200


def test_a_request_whose_time_is_over_reaches_nobody(server: OipServer, http: ServerHttp) -> None:
    with pytest.raises(DeadlineExceeded):
        ask(http, timeout_s=0)
    assert not server.requests


def test_a_connection_that_was_closed_while_idle_is_replaced_in_silence(server: OipServer, http: ServerHttp) -> None:
    ask(http)
    server.close_connections()
    assert ask(http).status == 200


def test_a_connection_that_closes_under_a_request_is_replaced_once(server: OipServer, http: ServerHttp) -> None:
    ask(http)
    server.fault = oip.hang_up
    with pytest.raises(ServerFailed):
        ask(http)
    assert len(server.requests) == 3


def test_a_restarted_server_is_found_again(server: OipServer) -> None:
    for http in client(server.url):
        ask(http)
        server.stop()
        with pytest.raises(ServerUnreachable):
            ask(http)
        with OipServer(port=server.port):
            assert ask(http).status == 200


def test_a_server_that_refuses_a_body_unread_is_heard(http: ServerHttp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_refuse_unread, args=(listener,), daemon=True).start()
        for asking in client(f"http://127.0.0.1:{listener.getsockname()[1]}"):
            reply = asking.request("POST", "/v2", Call("test", 5), body=[memoryview(bytes(50_000_000))])
            assert reply.status == 413


def _refuse_unread(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1_000_000):
            continue


def test_large_pieces_arrive_whole(server: OipServer, http: ServerHttp) -> None:
    server.fault = lambda exchange: exchange.reply(b"x" * 9_000_000)
    pieces: list[Piece] = [b"a", memoryview(bytes(20_000_000)), b"", b"b"]
    assert len(http.request("POST", "/v2", Call("test", 10), body=pieces).body) == 9_000_000
    assert server.headers[0]["content-length"] == "20000002"


def test_a_thousand_failures_leave_nothing_behind(server: OipServer) -> None:
    for http in client(server.url):
        ask(http)
        threads, descriptors = threading.active_count(), open_descriptors()
        faults = [*BROKEN, oip.busy, oip.silence]
        for number in range(1000):
            server.fault = faults[number % len(faults)]
            with pytest.raises((ServerFailed, ServerBusy, ServerTimeout)):
                ask(http, timeout_s=0.05 if server.fault is oip.silence else 5)
        server.fault = None
        assert ask(http).status == 200
        assert open_descriptors() <= descriptors + 8  # the server's own threads may still have theirs
        assert threading.active_count() <= threads + 8


def test_a_forked_process_makes_connections_of_its_own(server: OipServer) -> None:
    command = [sys.executable, "-c", _ASK + _FORK, server.url]
    told = subprocess.run(command, cwd=ROOT, env=environ({}), check=True, capture_output=True).stdout
    assert told == b"200 200 200\n"
    assert server.connections == 2


def test_a_trusted_certificate_is_believed_and_no_other(tmp_path: Path) -> None:
    certificate, context = self_signed(tmp_path, "127.0.0.1")
    with OipServer(tls=context) as server:
        told = environ({"SSL_CERT_FILE": str(certificate)})
        command = [sys.executable, "-c", _ASK + _TWICE, server.url]
        assert subprocess.run(command, cwd=ROOT, env=told, check=True, capture_output=True).stdout == b"200 200\n"
        for http in client(server.url):
            with pytest.raises(ServerFailed, match="certificate"):
                ask(http)


_ASK = """
import sys
from shared.call import Call
from shared.server_connections import Piece
from shared.server_http import ServerHttp
http = ServerHttp(sys.argv[1], token=None, retries=0, limit_s=5)
def ask():
    return http.request("GET", "/v2", Call("test", 5)).status
"""
_TWICE = "print(ask(), ask())"
_FORK = """
import os
before = ask()
child = os.fork()
if not child:
    os._exit(7 if ask() == 200 else 1)
ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(before, ask(), 200 if ended == 7 else ended)
"""


def test_the_transport_needs_neither_numpy_nor_a_framework() -> None:
    command = [sys.executable, "-c", "import sys, shared.open_inference_http; print(*sys.modules)"]
    imported = subprocess.run(command, cwd=ROOT, env=environ({}), check=True, capture_output=True, text=True).stdout
    assert not {"numpy", "PIL", "requests", "urllib3", "tritonclient", "grpc", "gevent"} & set(imported.split())
