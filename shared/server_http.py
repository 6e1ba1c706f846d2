"""HTTP to a model server: connections kept and used by many threads, one deadline for all of an exchange.

Written on http.client, because neither requests nor tritonclient's own HTTP client can hold a whole exchange to a
deadline (their limits begin anew with every byte), and the latter is for one thread and brings gevent. One transport
serves tensors and pictures, and a process that only forwards imports nothing more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, IncompleteRead
from math import ceil
from time import time
from typing import TYPE_CHECKING, cast

import msgspec

from shared.errors import ServerBusy, ServerFailed, ServerTimeout
from shared.retries import TimeLimit, asked_again
from shared.server_connections import Connection, Dialler, Piece
from shared.server_place import Place

if TYPE_CHECKING:
    import socket

    from shared.call import Call
    from shared.settings import Settings

LARGEST_BODY_BYTES = 512 * 1024 * 1024
_LONGEST_RETRY_AFTER_S = 3600
_READ_BYTES = 1024 * 1024
_NONE: Mapping[str, str] = {}


class Reply(msgspec.Struct, frozen=True):
    """The model server's answer; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ServerHttp:
    """One model server. Many threads may ask at once, each on a connection of its own; a process that was forked never
    uses the connections of the one that it came from."""

    @classmethod
    def of(cls, settings: Settings) -> ServerHttp:
        """The server that the settings name."""
        assert settings.backend_url is not None, "checked with the settings"
        limit_s = settings.backend_timeout_s
        return cls(settings.backend_url, token=settings.backend_token, retries=settings.retries, limit_s=limit_s)

    def __init__(self, url: str, *, token: str | None, retries: int, limit_s: float) -> None:
        # Taken and given back at the right end; without a lock, which a fork could catch held.
        self._idle: deque[Connection] = deque()
        self._place = Place.of(url)
        self._dialler = Dialler(self._place)
        self._headers = {"Host": self._place.authority, "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._retries = retries
        self._limit_s = limit_s

    def __del__(self) -> None:
        self.close()

    def request(
        self,
        method: str,
        path: str,
        call: Call,
        *,
        headers: Mapping[str, str] = _NONE,
        body: Sequence[Piece] = (),
        retries: int | None = None,
    ) -> Reply:
        """The answer, whatever its status but 503, within the call's time and this server's limit.

        `body` is sent piece by piece from where it is; a memoryview must be of bytes. Raises ServerUnreachable and
        ServerBusy once `retries` more have failed too, ServerTimeout, ServerFailed, DeadlineExceeded.
        """
        limit = TimeLimit(call, self._limit_s)
        pieces = [self._head(method, path, headers, sum(map(len, body))), *body]
        times = self._retries if retries is None else retries
        return asked_again(lambda: self._ask(method, pieces, limit), times, limit)

    def close(self) -> None:
        """Closes the connections that nobody uses. A later request makes new ones."""
        with suppress(IndexError):  # another thread may be quicker
            while True:
                self._idle.pop().close()

    def _head(self, method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
        lines = [f"{method} {self._place.prefix}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (self._headers | dict(headers)).items()]
        if method != "GET":
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _ask(self, method: str, pieces: Sequence[Piece], limit: TimeLimit) -> Reply:
        connection = self._kept()
        reply = None
        if connection is not None:
            reply = self._exchange(connection, method, pieces, limit)
        if reply is None:
            reply = self._exchange(self._dialler.dial(limit), method, pieces, limit)
        assert reply is not None, "only a connection that was kept may prove closed"
        if reply.status == 503:
            raise ServerBusy("the model server cannot answer now", retry_after_s=retry_after_s(reply))
        return reply

    def _kept(self) -> Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                return None
            if connection.usable:
                return connection
            connection.close()
        return None

    def _exchange(self, connection: Connection, method: str, pieces: Sequence[Piece], limit: TimeLimit) -> Reply | None:
        """The answer; None where the server turns out to have closed this connection while nobody used it."""
        connection.begin(limit)
        try:
            response = _asked(connection, method, pieces)
            reply = _reply(response)
        except (ServerTimeout, TimeoutError) as error:
            connection.close()
            self.close()  # the others may lead to the same silence
            raise limit.over() from error
        except (OSError, HTTPException, ValueError) as error:
            connection.close()
            if connection.used and not connection.heard:
                return None
            raise ServerFailed(_broken(connection)) from error
        except BaseException:
            connection.close()
            raise
        self._give_back(connection, response)
        return reply

    def _give_back(self, connection: Connection, response: HTTPResponse) -> None:
        if response.will_close:
            connection.close()
            return
        connection.rest()
        self._idle.append(connection)


def _asked(connection: Connection, method: str, pieces: Sequence[Piece]) -> HTTPResponse:
    """The answer's status and headers."""
    refused: OSError | None = None
    try:
        connection.send(pieces)
    except (BrokenPipeError, ConnectionResetError) as error:
        refused = error  # a server that will not take a body says why before it closes
    response = HTTPResponse(cast("socket.socket", connection), method=method)
    try:
        response.begin()
    except (OSError, HTTPException, ValueError):
        response.close()
        if refused is not None:
            raise refused from None
        raise
    if refused is not None:
        response.will_close = True
    return response


def _reply(response: HTTPResponse) -> Reply:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, _body(response))


def _body(response: HTTPResponse) -> bytes:
    length = response.length
    if length is None and response.chunked:
        return _chunked_body(response)
    if length is None:  # nobody could tell its end from a connection that was cut, in the headers already
        raise ServerFailed("the model server's answer does not say how long it is")
    if length > LARGEST_BODY_BYTES:
        raise _too_large()
    # Memory is taken as the bytes come: a length that is a lie costs nothing.
    body = response.read(length)
    if len(body) < length:
        raise IncompleteRead(b"", length - len(body))
    return body


def _chunked_body(response: HTTPResponse) -> bytes:
    body = bytearray()
    while piece := response.read(_READ_BYTES):
        body += piece
        if len(body) > LARGEST_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> ServerFailed:
    return ServerFailed("the model server's answer is too large", limit=LARGEST_BODY_BYTES)


def _broken(connection: Connection) -> str:
    if connection.heard:
        return "the model server broke its answer off, or it was not HTTP"
    return "the model server closed the connection without an answer"


def retry_after_s(reply: Reply) -> int | None:
    """The seconds that the server asks for, said as a number or as a date."""
    said = reply.headers.get("retry-after", "").strip()
    try:
        wait_s = int(said) if said.isdecimal() else ceil(parsedate_to_datetime(said).timestamp() - time())
    except (ValueError, OverflowError):
        return None
    return min(max(wait_s, 0), _LONGEST_RETRY_AFTER_S)
