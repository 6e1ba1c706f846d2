"""A request under way for as long as a test wants it to be."""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Any, Self

_TIMEOUT_S = 30


class Upload:
    """A request whose body stops half-way until `finish`. The server has begun it: it has asked for the body."""

    def __init__(self, port: int, body: bytes, content_type: str = "image/png") -> None:
        self._rest = body[len(body) // 2 :]
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self._socket.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (content_type.encode(), len(body))
        )
        begun = self._socket.recv(100)
        assert begun.startswith(b"HTTP/1.1 100 "), begun
        self._socket.sendall(body[: len(body) // 2])

    def finish(self) -> tuple[int, Any]:
        """Sends the rest and hangs up after the reply, of which it gives the status and the JSON."""
        with self._socket:
            self._socket.sendall(self._rest)
            reply = b"".join(iter(lambda: self._socket.recv(65536), b""))
        head, _, body = reply.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
