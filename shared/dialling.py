"""Making connections, and reading from them, as all that goes out from here does."""

from __future__ import annotations

import io
import socket
from collections.abc import Sequence
from http.client import HTTPException
from time import monotonic
from typing import Any, TypeAlias

Address: TypeAlias = tuple[int, tuple[Any, ...]]
"""Address family and socket address."""


class BoundedReader(io.BufferedReader):
    """What http.client reads an answer from."""

    def read(self, size: int | None = -1, /) -> bytes:
        # A chunk whose length is given as "-1" would otherwise be read to the end of the stream, into memory.
        if size is None or size < 0:
            raise HTTPException("a length below zero")
        return super().read(size)


def first_to_answer(addresses: Sequence[Address], ends_at: float, least_try_s: float) -> socket.socket:
    """A connection to the first address that answers; one that stays silent gets its share of the time, not all of it,
    but at least `least_try_s`. Raises the last one's OSError, TimeoutError where there was no time for any."""
    failed: OSError = TimeoutError()
    for number, (family, address) in enumerate(addresses):
        left_s = ends_at - monotonic()
        if left_s <= 0:
            break
        try:
            return _connected(family, address, min(left_s, max(left_s / (len(addresses) - number), least_try_s)))
        except OSError as error:
            failed = error
    raise failed


def _connected(family: int, address: tuple[Any, ...], limit_s: float) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(limit_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection
