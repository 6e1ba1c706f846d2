"""A real HTTP(S) server on loopback that misbehaves in the way its path names."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

PICTURE = b"\x89PNG\r\n\x1a\n not really, but bytes all the same"
DRIP_S = 0.05


class HostileServer:
    """Serves on a free port of 127.0.0.1 until the `with` block ends; `requests` holds what was asked, in order,
    and `left_open` counts the clients that had their reply and did not close within a second."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, replies: dict[str, bytes] | None = None) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self.left_open = 0
        self.replies = replies or {}
        self._tls = tls
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(lambda connection=connection: self._serve(connection))  # type: ignore[misc]

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                if self._tls:
                    with self._tls.wrap_socket(connection, server_side=True) as wrapped:
                        self._answer(wrapped)
                else:
                    self._answer(connection)
            except OSError:  # the client went away, as it should
                return

    def _answer(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = connection.recv(4096)
            if not piece:
                return
            request += piece
        self.requests.append(request.decode("latin-1"))
        path = self.requests[-1].split(" ")[1].partition("?")[0]
        if path in self.replies:
            connection.sendall(self.replies[path])
            self._hear_the_close(connection)
        else:
            name = path.strip("/").split("/")[0].replace("-", "_")
            getattr(self, name, HostileServer.missing)(connection, path)

    def _hear_the_close(self, connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1)
        try:
            while connection.recv(4096):
                continue
        except TimeoutError:
            self.left_open += 1

    @staticmethod
    def missing(connection: socket.socket, path: str) -> None:
        connection.sendall(reply(b"", status="404 Not Found"))

    # Each of these is the path of its name.

    def picture(self, connection: socket.socket, path: str) -> None:
        connection.sendall(reply(PICTURE))

    def loop(self, connection: socket.socket, path: str) -> None:
        connection.sendall(redirect("/loop"))

    def hops(self, connection: socket.socket, path: str) -> None:
        """/hops/N redirects N times, then there is a picture."""
        left = int(path.rsplit("/", 1)[1])
        connection.sendall(redirect(f"{left - 1}") if left else reply(PICTURE))

    def silence(self, connection: socket.socket, path: str) -> None:
        self._stopping.wait(5)

    def drip_headers(self, connection: socket.socket, path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        self._drip(connection, b"a")

    def drip_location(self, connection: socket.socket, path: str) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/")
        self._drip(connection, b"a")

    def drip_body(self, connection: socket.socket, path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        self._drip(connection, b"a")

    def drip_unsized_body(self, connection: socket.socket, path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        self._drip(connection, b"a")

    def drip_chunks(self, connection: socket.socket, path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self._drip(connection, b"1\r\na\r\n")

    def endless_continue(self, connection: socket.socket, path: str) -> None:
        self._drip(connection, b"HTTP/1.1 100 Continue\r\n\r\n")

    def endless_trailers(self, connection: socket.socket, path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        self._drip(connection, b"X-More: a\r\n")

    def endless_body(self, connection: socket.socket, path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        self._flood(connection)

    def endless_chunk(self, connection: socket.socket, path: str) -> None:
        """A chunk of length -1, which a careless reader reads to the end of the stream."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
        self._flood(connection)

    def endless_header(self, connection: socket.socket, path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Flood: ")
        self._flood(connection)

    def reset(self, connection: socket.socket, path: str) -> None:
        # With a linger time of zero, closing sends a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    def reset_in_body(self, connection: socket.socket, path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        time.sleep(DRIP_S)
        self.reset(connection, path)

    def _drip(self, connection: socket.socket, piece: bytes) -> None:
        while not self._stopping.wait(DRIP_S):
            connection.sendall(piece)

    def _flood(self, connection: socket.socket) -> None:
        while not self._stopping.is_set():
            connection.sendall(b"a" * 65536)


def reply(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole reply; `length` is the Content-Length to claim, the true one if None."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def redirect(location: str, *headers: str, status: str = "302 Found") -> bytes:
    return reply(b"", f"Location: {location}", *headers, status=status)


def gzip_bomb(megabytes: int) -> bytes:
    return gzip.compress(bytes(megabytes * 1024 * 1024))


def self_signed(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate for `name` that signs itself, and a server's context with it. Needs the `openssl` command."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    kind = "IP" if name[0].isdigit() else "DNS"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={kind}:{name}"]
    subprocess.run([*make, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context
