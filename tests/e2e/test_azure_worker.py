"""Microsoft's Python worker, as it runs in Azure, on the Azure door."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests import servers
from tests.servers import Server

pytestmark = pytest.mark.azure
_JPEG = {"Content-Type": "image/jpeg"}
_TIMEOUT_S = 30
_MAX_BODY = 20_000_000


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    with servers.azure() as server:
        yield server


def _functions(server: Server) -> Any:
    """Name, route, methods and auth level of every function that the worker has indexed."""
    (line,) = (line for line in server.log.splitlines() if line.startswith('host: {"functions"'))
    return json.loads(line.removeprefix("host: "))["functions"]


def test_one_function_is_indexed_with_every_path_and_method(worker: Server) -> None:
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    assert _functions(worker) == [["http", "{*path}", methods, "anonymous"]]


def test_the_auth_level_is_the_setting() -> None:
    with servers.azure({"THINLENS_AZURE_AUTH_LEVEL": "function"}) as server:
        assert [function[3] for function in _functions(server)] == ["function"]


def test_a_wrong_setting_is_told_by_its_name() -> None:
    with servers.azure({"THINLENS_THREADS": "many"}) as server:
        reply = requests.post(f"{server.url}/predict", timeout=_TIMEOUT_S)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "misconfigured")
    assert "THINLENS_THREADS" in reply.json()["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_reaches_the_application(worker: Server, method: str) -> None:
    reply = requests.request(method, f"{worker.url}/health", timeout=_TIMEOUT_S)
    assert len(reply.headers["X-Request-Id"]) == 32


def test_the_largest_body_arrives_whole(worker: Server, photo: bytes) -> None:
    padded = photo + bytes(_MAX_BODY - len(photo))
    plain = requests.post(f"{worker.url}/predict", data=photo, headers=_JPEG, timeout=_TIMEOUT_S).json()
    large = requests.post(f"{worker.url}/predict", data=padded, headers=_JPEG, timeout=_TIMEOUT_S).json()
    assert large["predictions"] == plain["predictions"]


def test_one_byte_more_is_too_large(worker: Server) -> None:
    reply = requests.post(f"{worker.url}/predict", data=bytes(_MAX_BODY + 1), headers=_JPEG, timeout=_TIMEOUT_S)
    assert (reply.status_code, reply.json()["error"]["found"]) == (413, _MAX_BODY + 1)


def test_a_body_in_chunks_that_the_host_withholds_is_told_as_missing(worker: Server, photo: bytes) -> None:
    # The Functions host hands no body to the worker that came without a Content-Length.
    reply = requests.post(f"{worker.url}/predict", data=iter([photo]), headers=_JPEG, timeout=_TIMEOUT_S)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "no_image")


def test_a_header_given_twice_arrives_as_a_list(worker: Server, photo: bytes) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/jpeg\r\n"
        b"Accept: text/plain\r\nAccept: image/webp\r\nContent-Length: %d\r\n\r\n" % len(photo)
    )
    with socket.create_connection(("127.0.0.1", worker.port), timeout=_TIMEOUT_S) as connection:
        connection.sendall(head + photo)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"Content-Type: image/webp" in reply


def test_functions_run_side_by_side_in_the_workers_threads(photo: bytes) -> None:
    with servers.azure({"PYTHON_THREADPOOL_THREAD_COUNT": "2"}) as server:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(photo)
        with socket.create_connection(("127.0.0.1", server.port), timeout=_TIMEOUT_S) as slow:
            slow.sendall(head + photo[:1000])
            assert requests.get(f"{server.url}/health", timeout=_TIMEOUT_S).status_code == 200
