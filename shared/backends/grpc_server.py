"""gRPC to a model server: one channel for each process, one deadline for a call and its repetitions."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from shared.call import Call
from shared.errors import Failure, ServerBusy, ServerFailed, ServerUnreachable
from shared.retries import TimeLimit, asked_again
from shared.server_connections import CONNECT_LIMIT_S
from shared.server_place import Place

if TYPE_CHECKING:
    from shared.settings import Settings

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Left alone, gRPC waits up to two minutes between two attempts to connect, and 20 s for one of them.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_LIMIT_S * 1000)),
    # How often a call is made again is for `asked_again` to say.
    ("grpc.enable_retries", 0),
    # A channel that is given up must not hand its dead connection on to the next.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
_OWN_WORDS = (
    "failed to connect", "name resolution", "dns resolution", "resolver", "socket closed", "stream removed",
    "connection reset", "broken pipe", "goaway", "endpoint closing", "transport closed", "recvmsg",
    "connections to all backends",
)  # fmt: skip
"""How grpc itself speaks of a connection; other words under UNAVAILABLE are the server's."""


NO_ENTRY = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_OF_THE_CONNECTION = (
    grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED,
)  # fmt: skip
"""What a connection that has gone bad ends in, beside UNAVAILABLE, after which grpc makes a new one by itself."""


class _Made(NamedTuple):
    """What one process speaks through."""

    process: int
    stub: Any


class GrpcServer:
    """One model server, which many threads may ask at once. The token goes as `authorization` metadata whatever the
    scheme, as it does over HTTP: whoever sets both has chosen so."""

    @classmethod
    def of(cls, settings: Settings, stub: Callable[[grpc.Channel], Any]) -> GrpcServer:
        """The server that the settings name."""
        assert settings.backend_url is not None, "checked with the settings"
        limit_s = settings.backend_timeout_s
        return cls(settings.backend_url, stub, token=settings.backend_token, retries=settings.retries, limit_s=limit_s)

    def __init__(
        self, url: str, stub: Callable[[grpc.Channel], Any], *, token: str | None, retries: int, limit_s: float
    ) -> None:
        """`stub` is the generated class of the service."""
        place = Place.of(url)
        self._stub = stub
        self._secure = place.secure
        self._target = place.authority
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._retries = retries
        self._limit_s = limit_s
        # Read and set whole, without a lock, which a fork could catch held.
        self._made: _Made | None = None

    def ask(self, method: str, request: Any, call: Call, *, retries: int | None = None) -> Any:
        """What `method` of the service answers to `request`. Raises grpc.RpcError for what the server says itself,
        ServerUnreachable, ServerBusy, ServerTimeout and DeadlineExceeded for the rest."""
        limit = TimeLimit(call, self._limit_s)
        times = self._retries if retries is None else retries
        return asked_again(lambda: self._once(method, request, limit), times, limit)

    def _once(self, method: str, request: Any, limit: TimeLimit) -> Any:
        made = self._connected()
        try:
            reply = getattr(made.stub, method)(request, timeout=limit.remaining_s(), metadata=self._metadata)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.UNAVAILABLE:  # grpc connects again by itself
                raise _unavailable(error) from error
            if code in _OF_THE_CONNECTION:
                self._give_up(made)
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise limit.over() from error
            raise
        if reply is None:  # which is what grpc makes of an answer that says "all is well" and no more
            self._give_up(made)
            raise ServerFailed("the model server's answer is empty")
        return reply

    def _connected(self) -> _Made:
        made = self._made
        if made is None or made.process != os.getpid():
            self._made = made = _Made(os.getpid(), self._stub(self._channel()))
        return made

    def _channel(self) -> grpc.Channel:
        if not self._secure:
            return grpc.insecure_channel(self._target, _OPTIONS)
        from shared.trust import authorities_pem  # reading certificates is for those who need them

        return grpc.secure_channel(self._target, grpc.ssl_channel_credentials(authorities_pem()), _OPTIONS)

    def _give_up(self, made: _Made) -> None:
        """The next call has a connection of its own: one that has died without a word would time every call out, and
        damage to the headers that both sides remember would spoil every later answer. Calls under way keep the old one
        alive until they end."""
        if self._made is made:
            self._made = None


def words(error: grpc.RpcError) -> str:
    """What the server says went wrong, for a log."""
    return f"{error.code().name} {error.details()}"


def _unavailable(error: grpc.RpcError) -> Failure:
    said = (error.details() or "").lower()
    if "certificate" in said or "ssl_error" in said:
        return ServerFailed("the model server's certificate or its TLS is not accepted")
    if any(phrase in said for phrase in _OWN_WORDS):
        return ServerUnreachable("the model server cannot be reached")
    return ServerBusy("the model server cannot answer now")
