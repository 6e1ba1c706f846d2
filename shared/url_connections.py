"""Connections that only reach admissible addresses: looked up, checked and connected to in one place, so that the
check and the connection cannot disagree, and shut at the deadline whatever they wait for."""

from __future__ import annotations

import functools
import http.client
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from shared.dialling import Address, BoundedReader, first_to_answer
from shared.errors import UrlFailed, UrlRefused, UrlTimeout, UrlUnresolved
from shared.trust import trust
from shared.url_policy import UrlPolicy

CONNECT_LIMIT_S = 3.0
# A server that has sent next to nothing by then sends a picture to nobody.
BEGIN_LIMIT_S = 4.0
_LEAST_TRY_S = 0.5

Dial: TypeAlias = Callable[[str, int], socket.socket]


class Watch:
    """Holds one fetch to its total time. A socket's own timeout starts anew with every byte, so at the deadline
    the connection is shut from another thread; whoever reads then sees the end of the stream and asks `expired`."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._deadline = monotonic() + limit_s
        self._lock = threading.Lock()
        self._rung = False
        self._watched: socket.socket | None = None
        self._begun = False
        self._timers = [threading.Timer(limit_s, self._ring), threading.Timer(BEGIN_LIMIT_S, self._ring_unless_begun)]

    def __enter__(self) -> Self:
        for timer in self._timers:
            timer.daemon = True
            timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        with self._lock:
            self._release()

    @property
    def left_s(self) -> float:
        return self._deadline - monotonic()

    @property
    def expired(self) -> bool:
        return self._rung or self.left_s <= 0

    def check(self) -> None:
        """Raises UrlTimeout once the time is up."""
        if self.expired:
            limit_s = round(max(self.limit_s, 0), 1)  # as it was when the time ran out
            raise UrlTimeout(f"the URL did not deliver a picture within {limit_s:g} s", limit=limit_s)

    def follow(self, connection: socket.socket) -> None:
        """Watch this connection from now on, in place of the one before."""
        with self._lock:
            self._release()
            self.check()
            # A duplicate, because wrapping a socket in TLS empties the original object.
            self._watched = connection.dup()

    def begun(self) -> None:
        """The body has begun to arrive, faster than a byte now and then."""
        self._begun = True

    def _ring_unless_begun(self) -> None:
        if not self._begun:
            self.limit_s = BEGIN_LIMIT_S
            self._ring()

    def _ring(self) -> None:
        with self._lock:
            self._rung = True
            if self._watched is not None:
                _shut(self._watched)

    def _release(self) -> None:
        if self._watched is not None:
            self._watched.close()
            self._watched = None


def dial(host: str, port: int, *, policy: UrlPolicy, watch: Watch, subject: str) -> socket.socket:
    """A connection to `host`, under `watch`, if the policy admits every address that the name has at this moment."""
    watch.check()
    deadline = monotonic() + min(CONNECT_LIMIT_S, watch.left_s)
    places = _places(host, port, deadline, policy, subject)
    if not policy.admits(host, [ip_address(place[0]) for _, place in places]):
        raise _refusal(policy, subject)
    connection = _connect(places, deadline, subject)
    try:
        watch.follow(connection)
        connection.settimeout(max(watch.left_s, 0.001))
    except BaseException:
        connection.close()
        raise
    return connection


def _places(host: str, port: int, deadline: float, policy: UrlPolicy, subject: str) -> list[Address]:
    try:
        literal = ip_address(host)
    except ValueError:
        if not policy.may_look_up(host):
            raise _refusal(policy, subject) from None
        return _look_up(host, port, deadline, subject)
    return [(socket.AF_INET if literal.version == 4 else socket.AF_INET6, (host, port))]


def _look_up(host: str, port: int, deadline: float, subject: str) -> list[Address]:
    """What the resolver says, in a thread that is left behind when it takes too long: getaddrinfo cannot be stopped."""
    answers: SimpleQueue[list[Address] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([(family, place) for family, _, _, _, place in found])
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="url-lookup", daemon=True).start()
    try:
        answer = answers.get(timeout=max(deadline - monotonic(), 0))
    except Empty:
        raise UrlUnresolved(f"{subject} names a host that could not be looked up in time; try again later") from None
    if isinstance(answer, Exception) or not answer:
        cause = answer if isinstance(answer, Exception) else None
        raise UrlUnresolved(f"{subject} names a host that is not known; check its spelling") from cause
    return answer


def _connect(places: list[Address], deadline: float, subject: str) -> socket.socket:
    try:
        return first_to_answer(places, deadline, _LEAST_TRY_S)
    except TimeoutError as error:
        raise UrlTimeout(f"{subject} names a server that did not take a connection in time") from error
    except OSError as error:
        raise UrlFailed(f"{subject} names a server that cannot be reached") from error


def _refusal(policy: UrlPolicy, subject: str) -> UrlRefused:
    if policy.mode == "public":
        return UrlRefused(f"{subject} leads to an address that is not public")
    return UrlRefused(f"{subject} leads to a host that is not on this service's allow-list")


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was quicker
        return


class _Response(http.client.HTTPResponse):
    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, *, closing: ExitStack
    ) -> None:
        super().__init__(sock, debuglevel, method)
        closing.callback(self.close)
        self.fp = BoundedReader(self.fp.detach())


class _HttpConnection(HTTPConnection):
    dial: Dial

    def _new_conn(self) -> socket.socket:
        return self.dial(self.host, self.port)


class _HttpsConnection(HTTPSConnection):
    dial: Dial

    def connect(self) -> None:
        # Done here, because urllib3 would set options on the shared context while other threads use it.
        self.sock = trust().wrap_socket(self.dial(self.host, self.port), server_hostname=self.host)
        self.is_verified = True


class _HttpPool(HTTPConnectionPool):
    dial: Dial
    closing: ExitStack

    def _new_conn(self) -> _HttpConnection:
        return _equipped(_HttpConnection(self.host, self.port), self.dial, self.closing)


class _HttpsPool(HTTPSConnectionPool):
    dial: Dial
    closing: ExitStack

    def _new_conn(self) -> _HttpsConnection:
        return _equipped(_HttpsConnection(self.host, self.port), self.dial, self.closing)


Connection = TypeVar("Connection", _HttpConnection, _HttpsConnection)


def _equipped(connection: Connection, dial: Dial, closing: ExitStack) -> Connection:
    closing.callback(connection.close)
    connection.dial = dial
    connection.response_class = functools.partial(_Response, closing=closing)  # type: ignore[assignment]
    return connection


class GuardedAdapter(HTTPAdapter):
    """requests' transport over `dial`. Without a Session around it there are no cookies, no redirects, no
    credentials, and no proxies or certificate paths from the environment. Closing it closes all that it opened,
    which urllib3 leaves to the garbage collector where a reply is broken."""

    def __init__(self, dial: Dial) -> None:
        super().__init__()
        self._dial = dial
        self._closing = ExitStack()
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def close(self) -> None:
        super().close()
        self._closing.close()

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: Any,
        proxies: Any = None,  # noqa: ARG002 - never through one
        cert: Any = None,
    ) -> HTTPConnectionPool:
        pool = super().get_connection_with_tls_context(request, verify, None, cert)
        # A pool that never passed here has no `dial` and cannot connect at all.
        assert isinstance(pool, _HttpPool | _HttpsPool)
        pool.dial, pool.closing = self._dial, self._closing
        return pool

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing to set: every TLS connection verifies against `trust`."""
