from __future__ import annotations

import socket
from contextlib import suppress
from io import BytesIO
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest

from shared.call import Call
from shared.errors import BadRequest, BodyTooLarge, UploadTooSlow
from shared.web.body import discard_unread, read_body


def environ(data: bytes, length: int | None, **rest: Any) -> dict[str, Any]:
    declared = {} if length is None else {"CONTENT_LENGTH": str(length)}
    return {"wsgi.input": BytesIO(data), **declared, **rest}


def call(timeout_s: float = 10) -> Call:
    return Call("test", timeout_s)


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 300_000])
def test_a_body_is_read_whole(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert read_body(environ(data, size), 300_000, call()) == data
    assert read_body(environ(data, None, **CHUNKED), 300_000, call()) == data


def test_only_what_was_declared_is_read() -> None:
    given = environ(b"abcdef", 3)
    assert read_body(given, 10, call()) == b"abc"
    assert given["wsgi.input"].read() == b"def"


def test_without_a_length_and_without_chunks_there_is_no_body() -> None:
    assert read_body(environ(b"abc", None), 10, call()) == b""


def test_a_length_beside_chunks_is_not_believed() -> None:
    assert read_body(environ(b"abcdef", 3, **CHUNKED), 10, call()) == b"abcdef"


def test_a_length_beside_chunks_is_all_there_is_where_the_stream_has_no_end_of_its_own() -> None:
    assert read_body(environ(b"abcdef", 3, HTTP_TRANSFER_ENCODING="chunked"), 10, call()) == b"abc"


def test_a_body_that_is_declared_too_large_is_not_kept() -> None:
    given = environ(bytes(11), 11)
    with pytest.raises(BodyTooLarge) as raised:
        read_body(given, 10, call())
    assert raised.value.figures == {"limit": 10, "found": 11}
    assert given["wsgi.input"].read() == b"", "the client may still be sending, and would not read the reply"


def test_a_body_that_turns_out_too_large_is_not_kept() -> None:
    given = environ(bytes(1_000_000), None, **CHUNKED)
    with pytest.raises(BodyTooLarge) as raised:
        read_body(given, 100_000, call())
    assert raised.value.figures == {"limit": 100_000}
    assert given["wsgi.input"].read() == b""


@pytest.mark.parametrize("text", ["-1", "1e3", "x", "\xb2", " 1", "9" * 19, "9" * 5000])
def test_a_length_that_is_no_number_is_the_callers_fault(text: str) -> None:
    with pytest.raises(BadRequest, match="Content-Length"):
        read_body({"wsgi.input": BytesIO(), "CONTENT_LENGTH": text}, 10, call())


def test_a_body_that_ends_early_is_the_callers_fault() -> None:
    with pytest.raises(BadRequest, match="after 3 of 5"):
        read_body(environ(b"abc", 5), 10, call())


def test_a_call_whose_time_is_over_reads_nothing() -> None:
    given = environ(b"abc", 3)
    with pytest.raises(UploadTooSlow):
        read_body(given, 10, call(0))
    assert given["wsgi.input"].tell() == 0


class _Broken:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def read(self, size: int, /) -> bytes:
        raise self._error


@pytest.mark.parametrize("error", [OSError("reset"), ValueError("chunk"), EOFError(), LookupError("a server's own")])
def test_whatever_a_servers_stream_raises_is_the_callers_fault(error: Exception) -> None:
    with pytest.raises(BadRequest):
        read_body({"wsgi.input": _Broken(error), "CONTENT_LENGTH": "3"}, 10, call())


class _FromSocket:
    """Reads until it has all that is asked for, as servers' streams do."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read(self, size: int, /) -> bytes:
        data = b""
        while len(data) < size and (piece := self._connection.recv(size - len(data))):
            data += piece
        return data


def test_a_client_that_sends_byte_by_byte_is_cut_off_in_time_and_can_be_answered() -> None:
    ours, theirs = socket.socketpair()

    def drip() -> None:
        with suppress(OSError):
            for _ in range(40):
                theirs.send(b"x")
                sleep(0.05)

    with ours, theirs:
        dripping = Thread(target=drip)
        dripping.start()
        begin = monotonic()
        given = {"wsgi.input": _FromSocket(ours), "CONTENT_LENGTH": "1000", "gunicorn.socket": ours}
        with pytest.raises(UploadTooSlow):
            read_body(given, 1000, call(0.5))
        assert 0.45 < monotonic() - begin < 1.5
        ours.sendall(b"408")
        assert theirs.recv(3) == b"408"
        dripping.join()


def test_a_socket_stays_as_it_was_when_the_body_came_in_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"abcdef")
        given = {"wsgi.input": _FromSocket(ours), "CONTENT_LENGTH": "3", "gunicorn.socket": ours}
        assert read_body(given, 10, call(0.3)) == b"abc"
        sleep(0.7)
        assert (ours.gettimeout(), ours.recv(3)) == (None, b"def")


def test_an_unread_body_whose_end_nobody_tells_is_left_alone() -> None:
    class Endless:
        def read(self, size: int) -> bytes:
            raise AssertionError("read without an end in sight")

    discard_unread({"wsgi.input": Endless(), "HTTP_TRANSFER_ENCODING": "chunked"})
