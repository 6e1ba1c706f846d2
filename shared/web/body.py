"""A request's body as bytes, within a size and a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from socket import SHUT_RD, socket
from threading import Condition, Thread
from time import monotonic, sleep
from typing import Any, Protocol

from shared.call import Call
from shared.errors import BadRequest, BodyTooLarge, UploadTooSlow

_CHUNK = 1 << 16
_DRAIN_BYTES = 256 << 20
_DRAIN_S = 2.0
_BEGUN = "thinlens.body_begun"
_SWEEP_S = 0.25
_LONGEST_LENGTH = 18  # digits; int() of thousands of them is refused by Python with another error


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_body(environ: dict[str, Any], max_bytes: int, call: Call, copies: int = 2) -> bytes:
    """The whole body. Its memory is waited for, `copies` times its size. Raises BodyTooLarge,
    UploadTooSlow, or BadRequest where it ends before its declared length; and what Share.hold raises."""
    length = _declared_length(environ)
    if length is not None and length <= max_bytes:
        _hold(call, copies * length)
    environ[_BEGUN] = True
    stream: _Stream = environ["wsgi.input"]
    if length is None and not environ.get("wsgi.input_terminated"):
        return b""
    if length is not None and length > max_bytes:
        _drain(stream, length, environ)
        raise _too_large(max_bytes, length)
    with _UPLOADS.limited(environ, call.remaining_s):
        body = _read_whole(stream, length, max_bytes, call, copies)
    if body is None:
        _drain(stream, None, environ)
        raise _too_large(max_bytes, None)
    if length is not None and len(body) < length:
        raise BadRequest(f"the body ended after {len(body)} of {length} bytes", limit=length, found=len(body))
    return body


def discard_unread(environ: dict[str, Any]) -> None:
    """Takes in the body of a request that is answered without it: a server closes a connection on which one is left,
    and the client's next request there would be lost."""
    if environ.get(_BEGUN):
        return
    try:
        length = _declared_length(environ)
    except BadRequest:  # it cannot be told how much there is
        return
    if length or _in_chunks(environ):
        _drain(environ["wsgi.input"], length, environ)


def _hold(call: Call, needed_bytes: int) -> None:
    if call.share is not None:
        call.share.hold(needed_bytes, call)


def _read_whole(stream: _Stream, length: int | None, max_bytes: int, call: Call, copies: int) -> bytes | None:
    """All that comes, or None where that is more than `max_bytes`."""
    chunks: list[bytes] = []
    size, held = 0, 0
    while length is None or size < length:
        chunk = _read(stream, _CHUNK if length is None else min(_CHUNK, length - size), call.remaining_s)
        if not chunk:
            break
        size += len(chunk)
        chunks.append(chunk)
        if length is None and size > held:
            held = 2 * size
            _hold(call, copies * held)
        if size > max_bytes:
            return None
    return b"".join(chunks)


def _declared_length(environ: dict[str, Any]) -> int | None:
    """Content-Length, or None where there is none or the body comes in chunks."""
    if _in_chunks(environ):
        return None
    text = environ.get("CONTENT_LENGTH") or ""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_LENGTH):
        raise BadRequest(f"Content-Length: expected a number, found {text[:40]!r}")
    return int(text)


def _in_chunks(environ: dict[str, Any]) -> bool:
    """Whether the stream says itself where the body ends; where it does not, reading on would wait for ever."""
    return bool(environ.get("HTTP_TRANSFER_ENCODING") and environ.get("wsgi.input_terminated"))


def _read(stream: _Stream, size: int, remaining_s: float) -> bytes:
    ends_at = monotonic() + remaining_s
    if remaining_s <= 0:
        raise _too_slow()
    try:
        chunk = stream.read(size)
    except Exception as error:  # a server's stream raises its own kinds for broken chunks and broken connections
        if monotonic() >= ends_at:
            raise _too_slow() from error
        raise BadRequest("the connection broke, or the body's chunks are malformed") from error
    if monotonic() >= ends_at:
        raise _too_slow()
    return chunk


class _Uploads:
    """Connections whose bodies are arriving. At the end of its time a connection's reading side is shut, and whoever
    waits for its bytes sees the end of the stream: a socket's own timeout would start anew with every byte, so that a
    client which sends them one by one could hold a thread for days."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._watched: set[tuple[float, socket]] = set()
        self._sweeper: Thread | None = None

    @contextmanager
    def limited(self, environ: dict[str, Any], remaining_s: float) -> Iterator[None]:
        """Where the server hands its socket to us; other hosts have read the body before they call."""
        connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        if connection is None:
            yield
            return
        watched = (monotonic() + remaining_s, connection)
        with self._changed:
            self._watched.add(watched)
            self._changed.notify()
            if self._sweeper is None or not self._sweeper.is_alive():  # dead in a process that was forked
                self._sweeper = Thread(target=self._sweep, name="slow-uploads", daemon=True)
                self._sweeper.start()
        try:
            yield
        finally:
            with self._changed:
                self._watched.discard(watched)

    def _sweep(self) -> None:
        while True:
            with self._changed:
                while not self._watched:
                    self._changed.wait()
                now = monotonic()
                for ends_at, connection in self._watched:
                    if ends_at <= now:
                        _shut(connection)
            sleep(_SWEEP_S)


_UPLOADS = _Uploads()


def _shut(connection: socket) -> None:
    try:
        socket.shutdown(connection, SHUT_RD)  # the plain socket's own: a TLS one would forget how to write
    except OSError:
        return


def _drain(stream: _Stream, length: int | None, environ: dict[str, Any]) -> None:
    """Reads on for a while and throws it away: a connection closed on unread bytes is reset, and the client would see
    that instead of the reply."""
    ends_at = monotonic() + _DRAIN_S
    left = _DRAIN_BYTES if length is None else min(length, _DRAIN_BYTES)
    try:
        with _UPLOADS.limited(environ, _DRAIN_S):
            while left > 0 and (chunk := _read(stream, min(_CHUNK, left), ends_at - monotonic())):
                left -= len(chunk)
    except (UploadTooSlow, BadRequest):
        return


def _too_slow() -> UploadTooSlow:
    return UploadTooSlow("the body did not arrive in time")


def _too_large(limit: int, found: int | None) -> BodyTooLarge:
    figures = {} if found is None else {"found": found}
    return BodyTooLarge(f"the body is larger than {limit} bytes", limit=limit, **figures)
