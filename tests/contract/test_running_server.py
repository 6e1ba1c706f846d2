"""What only a real server and a raw socket can show: slow, broken and oversized uploads, and a wrong environment."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import requests

from tests import servers
from tests.clients import bundle, check_failure, picture

MAX_BODY = 200_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A server with little patience and little room."""
    root = tmp_path_factory.mktemp("models")
    bundle(root, family="tf-detection")
    settings = {
        "THINLENS_MODELS": str(root),
        "THINLENS_TIMEOUT_S": "1",
        "THINLENS_MAX_BODY_MB": "0.2",
        "THINLENS_API_KEYS": "key",
    }
    with servers.container(settings) as running:
        yield running


def talk(port: int, *parts: bytes, pause_s: float = 0.0) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the reply to what is sent part by part."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            pass
        reply = b""
        while b"\r\n\r\n" not in reply or len(reply.partition(b"\r\n\r\n")[2]) < _length(reply):
            piece = connection.recv(65536)
            assert piece, f"the reply ended after {reply!r}"
            reply += piece
    head, _, body = reply.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def _length(reply: bytes) -> int:
    head = reply.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length: ")[2].split(b"\r\n")[0] or b"0")


def head(*lines: str, path: str = "/predict", method: str = "POST") -> bytes:
    fixed = [f"{method} {path} HTTP/1.1", "Host: localhost", "X-API-Key: key", "Content-Type: image/png"]
    return "\r\n".join([*fixed, *lines, "", ""]).encode("latin-1")


def failed(reply: tuple[int, dict[str, str], bytes], status: int, code: str) -> dict[str, Any]:
    found, headers, body = reply
    error: dict[str, Any] = json.loads(body)["error"]
    assert (found, error["code"]) == (status, code)
    check_failure(error, headers)
    return error


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answers(server: servers.Server) -> bool:
    return talk(server.port, head(f"Content-Length: {len(picture())}"), picture())[0] == 200


def test_a_client_that_stops_sending_is_told_in_time(server: servers.Server) -> None:
    begin = monotonic()
    failed(talk(server.port, head("Content-Length: 1000"), b"abc"), 408, "upload_too_slow")
    assert 0.9 < monotonic() - begin < 4
    assert answers(server)


def test_a_client_that_sends_byte_by_byte_does_not_hold_a_thread_for_longer(server: servers.Server) -> None:
    begin = monotonic()
    drips = [b"x"] * 30
    failed(talk(server.port, head("Content-Length: 1000"), *drips, pause_s=0.1), 408, "upload_too_slow")
    assert monotonic() - begin < 5
    assert answers(server)


def test_chunks_that_come_byte_by_byte_do_not_either(server: servers.Server) -> None:
    drips = [chunk(b"x")] * 30
    failed(talk(server.port, head("Transfer-Encoding: chunked"), *drips, pause_s=0.1), 408, "upload_too_slow")


def test_slow_uploads_leave_the_others_alone(server: servers.Server) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(8)]
    try:
        for connection in idle:
            connection.sendall(head("Content-Length: 1000"))
        begin = monotonic()
        assert answers(server)
        assert monotonic() - begin < 1
    finally:
        for connection in idle:
            connection.close()


def test_a_chunked_picture_is_read(server: servers.Server) -> None:
    data = picture()
    parts = [chunk(data[:50]), chunk(data[50:]), b"0\r\n\r\n"]
    assert talk(server.port, head("Transfer-Encoding: chunked"), *parts)[0] == 200


@pytest.mark.parametrize("body", [b"nonsense\r\n", b"5\r\nabcdefgh\r\n", b"-1\r\n\r\n"])
def test_malformed_chunks_are_the_callers_fault(body: bytes, server: servers.Server) -> None:
    failed(talk(server.port, head("Transfer-Encoding: chunked"), body), 400, "bad_request")
    assert answers(server)


def test_a_body_that_ends_early_is_the_callers_fault(server: servers.Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head("Content-Length: 1000") + b"abc")
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            reply = stream.read()
    assert b"400" in reply.splitlines()[0]
    assert b'"bad_request"' in reply


@pytest.mark.parametrize("size", [MAX_BODY + 1, 5_000_000])
def test_a_client_whose_declared_body_is_too_large_can_read_why(size: int, server: servers.Server) -> None:
    headers = {"X-API-Key": "key", "Content-Type": "image/png"}
    response = requests.post(f"{server.url}/predict", data=bytes(size), headers=headers, timeout=20)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
    assert (response.json()["error"]["limit"], response.json()["error"]["found"]) == (MAX_BODY, size)


def test_a_client_whose_chunked_body_is_too_large_can_read_why(server: servers.Server) -> None:
    headers = {"X-API-Key": "key", "Content-Type": "image/png"}
    pieces = (bytes(50_000) for _ in range(100))
    response = requests.post(f"{server.url}/predict", data=pieces, headers=headers, timeout=20)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/predict", {}, 401),
        ("/nothing", {}, 404),
        ("/health", {}, 405),
        ("/predict", {"X-API-Key": "key", "Content-Type": "text/plain"}, 415),
        ("/models/nothing/predict", {"X-API-Key": "key"}, 404),
        ("/predict?a=1&a=2", {"X-API-Key": "key"}, 400),
    ],
)
def test_a_client_can_read_a_refusal_that_did_not_wait_for_its_body(
    path: str, headers: dict[str, str], status: int, server: servers.Server
) -> None:
    for _ in range(3):
        response = requests.post(f"{server.url}{path}", data=bytes(5_000_000), headers=headers, timeout=20)
        assert response.status_code == status


def test_a_connection_is_of_use_after_a_refusal(server: servers.Server) -> None:
    with requests.Session() as session:
        for _ in range(3):
            assert session.post(f"{server.url}/predict", data=bytes(1000), timeout=20).status_code == 401
            good = session.post(f"{server.url}/predict", data=picture(), headers={"X-API-Key": "key"}, timeout=20)
            assert good.status_code == 200


def test_header_bytes_outside_ascii_crash_nothing(server: servers.Server) -> None:
    request = head(
        "X-Request-Id: \xff", "Accept: \xe9/\xe9", "Origin: \xff", "Authorization: Bearer \xff", "Content-Length: 0"
    )
    failed(talk(server.port, request), 400, "no_image")


def test_every_line_of_the_log_is_json_and_none_tells_the_key(server: servers.Server) -> None:
    talk(server.port, head("Content-Length: 0", path="/predict?hush=hush"))
    lines = [line for line in server.log.splitlines() if line.startswith("{")]
    assert all(json.loads(line)["message"] for line in lines)
    assert not [line for line in server.log.splitlines() if "Traceback" in line or "hush" in line]
    assert '"key"' not in server.log


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"THINLENS_THREADS": "many"}, "THINLENS_THREADS"),
        ({"THINLENS_BAKEND": "onnx"}, "THINLENS_BACKEND"),
        ({"THINLENS_MODEL": "nothing"}, "THINLENS_MODEL"),
        ({"THINLENS_MODELS": "/nowhere/at/all"}, "THINLENS_MODELS"),
        ({"AIP_PREDICT_ROUTE": "no/slash<x>"}, "AIP_PREDICT_ROUTE"),
    ],
)
def test_a_wrong_environment_is_named_and_the_process_lives(settings: dict[str, str], named: str) -> None:
    with servers.container(settings) as running:
        assert requests.get(f"{running.url}/health", timeout=20).json() == {"status": "alive"}
        response = requests.get(f"{running.url}/ready", timeout=20, headers={"X-Request-Id": "me"})
        assert (response.status_code, response.json()["state"]) == (503, "broken")
        assert response.headers["X-Request-Id"] == "me"
        error = requests.get(f"{running.url}/predict", timeout=20).json()["error"]
        assert error["code"] == "misconfigured"
        assert named in error["message"]
        assert "/nowhere" not in error["message"]


def test_a_wrong_environment_says_when_to_come_back(tmp_path: Path) -> None:
    with servers.container({"THINLENS_MODELS": str(tmp_path)}) as running:
        response = requests.post(f"{running.url}/predict", data=picture(), timeout=20)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "60")


@pytest.mark.parametrize(("path", "status"), [("/predict", 415), ("/models/none/predict", 404), ("/nothing", 404)])
def test_a_reply_without_the_body_leaves_the_connection_usable(path: str, status: int, server: servers.Server) -> None:
    headers = {"Content-Type": "application/xml", "X-API-Key": "key"}
    for _ in range(20):
        with requests.Session() as session:
            refused = session.post(f"{server.url}{path}", b"x" * 150_000, headers=headers, timeout=20)
            assert refused.status_code == status
            assert session.get(f"{server.url}/health", timeout=20).ok
