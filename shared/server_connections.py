"""Connections to a model server. Whatever one waits for, it waits no longer than the time limit of its exchange."""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from shared.dialling import Address, BoundedReader, first_to_answer
from shared.errors import ServerFailed, ServerUnreachable
from shared.retries import TimeLimit
from shared.server_place import Place

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECT_LIMIT_S = 2.0
IDLE_LIMIT_S = 60.0
"""Shorter than what load balancers and address translation on the way keep in mind."""
_LEAST_TRY_S = 0.3
_JOINED_BYTES = 64 * 1024

Piece: TypeAlias = bytes | memoryview


class Dialler:
    """Makes connections to one place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lookup: _Lookup | None = None

    def dial(self, limit: TimeLimit) -> Connection:
        """A new connection. Raises ServerUnreachable, and ServerFailed where the server is not who it should be."""
        ends_at = monotonic() + min(CONNECT_LIMIT_S, limit.remaining_s())
        connection = _first(self._addresses(ends_at), ends_at)
        try:
            return Connection(self._secured(connection, ends_at) if self._place.secure else connection)
        except BaseException:
            connection.close()
            raise

    def _addresses(self, ends_at: float) -> list[Address]:
        host, port = self._place.host, self._place.port
        with suppress(ValueError):
            return [(socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6, (host, port))]
        # One question to the resolver at a time, however many callers: it cannot be stopped, and may hang for long.
        lookup = self._lookup
        if lookup is None or lookup.over:
            lookup = self._lookup = _Lookup(host, port)
        return lookup.wait(ends_at)

    def _secured(self, connection: socket.socket, ends_at: float) -> ssl.SSLSocket:
        from shared.trust import trust  # reading certificates is for those who need them

        connection.settimeout(max(ends_at - monotonic(), 0.001))
        try:
            return trust().wrap_socket(connection, server_hostname=self._place.host)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, TimeoutError) as error:
            raise _unreachable("does not take a secure connection in time") from error
        except (ssl.SSLError, ValueError) as error:
            raise ServerFailed("the model server's certificate or its TLS is not accepted") from error
        except OSError as error:
            raise _unreachable("broke the connection off") from error


class Connection:
    """One connection, for one exchange at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._process = os.getpid()
        self._idle_since = monotonic()
        self.used = False
        """Whether an exchange has been made on it before."""
        self.heard = False
        """Whether anything of the present answer has come."""
        self._limit: TimeLimit

    def begin(self, limit: TimeLimit) -> None:
        """An exchange within `limit` begins."""
        self._limit = limit
        self.heard = False

    def rest(self) -> None:
        """The exchange is over."""
        self.used = True
        self._idle_since = monotonic()

    @property
    def usable(self) -> bool:
        """Whether a further exchange may be tried: not another process's, not idle for too long, not closed by the
        server, and nothing unasked-for in it."""
        if self._process != os.getpid() or monotonic() - self._idle_since > IDLE_LIMIT_S:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def send(self, pieces: Iterable[Piece]) -> None:
        """Sends the pieces one after the other, small ones together, large ones from where they are."""
        joined = bytearray()
        for piece in pieces:
            if len(joined) + len(piece) <= _JOINED_BYTES:
                joined += piece
                continue
            self._send(joined)
            joined = bytearray()
            self._send(piece)
        self._send(joined)

    def _send(self, piece: bytearray | Piece) -> None:
        left = memoryview(piece)
        while left:
            self._socket.settimeout(self._limit.remaining_s())
            left = left[self._socket.send(left) :]

    def receive_into(self, buffer: WriteableBuffer) -> int:
        self._socket.settimeout(self._limit.remaining_s())
        count = self._socket.recv_into(buffer)
        self.heard = self.heard or count > 0
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What http.client reads an answer from."""
        return BoundedReader(_Receiving(self))

    def close(self) -> None:
        if self._process == os.getpid():  # the parent's connection lives on
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class _Receiving(io.RawIOBase):
    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._connection.receive_into(buffer)


class _Lookup:
    """One question to the resolver, in a thread that is left behind when it takes too long."""

    def __init__(self, host: str, port: int) -> None:
        self._process = os.getpid()
        self._answer: Future[list[Address]] = Future()
        threading.Thread(target=self._ask, args=(host, port), name="server-lookup", daemon=True).start()

    @property
    def over(self) -> bool:
        return self._answer.done() or self._process != os.getpid()

    def wait(self, ends_at: float) -> list[Address]:
        try:
            return self._answer.result(max(ends_at - monotonic(), 0))
        except TimeoutError as error:
            raise _unreachable("has a name that could not be looked up in time") from error
        except (OSError, ValueError) as error:
            raise _unreachable("has a name that is not known") from error

    def _ask(self, host: str, port: int) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            self._answer.set_exception(error)
        else:
            self._answer.set_result([(family, address) for family, _, _, _, address in found])


def _first(addresses: list[Address], ends_at: float) -> socket.socket:
    try:
        return first_to_answer(addresses, ends_at, _LEAST_TRY_S)
    except TimeoutError as error:
        raise _unreachable("did not take a connection in time") from error
    except OSError as error:
        raise _unreachable("cannot be reached") from error


def _unreachable(what: str) -> ServerUnreachable:
    return ServerUnreachable(f"the model server {what}")
