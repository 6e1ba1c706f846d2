"""A real server of the Open Inference Protocol on loopback, that can also misbehave in the way that it is told.

It reads and writes the protocol with the json and struct modules and numpy alone, as its specification says.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

MODEL = "own.detector"
_NUMPY = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8, "INT64": np.int64, "BOOL": np.bool_}
_HEAD_LENGTH = "Inference-Header-Content-Length"
_DRIP_S = 0.05
_NONE: Mapping[str, str] = {}
_LINGER_NOT = b"\x01\0\0\0\0\0\0\0"

Json = dict[str, Any]
Arrays = dict[str, npt.NDArray[Any]]
Fault = Callable[["Exchange"], None]
INPUTS = [
    {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
    {"name": "pixels", "datatype": "UINT8", "shape": [1, -1, 2, 3]},
]
OUTPUTS = [
    {"name": "sum", "datatype": "FP32", "shape": [-1, 3]},
    {"name": "half", "datatype": "FP16", "shape": [-1, 3]},
    {"name": "light", "datatype": "BOOL", "shape": [-1]},
    {"name": "total", "datatype": "INT64", "shape": [1]},
    {"name": "pixels", "datatype": "UINT8", "shape": [1, -1, 2, 3]},
]


def answer(inputs: Arrays) -> Arrays:
    """x -> sum = 2 x + 1, half = x / 2; pixels -> themselves, light = those above 127, total = their sum."""
    x, pixels = inputs["x"], inputs["pixels"]
    return {
        "sum": 2 * x + 1,
        "half": (x / 2).astype(np.float16),
        "light": pixels.ravel() > 127,
        "total": np.array([pixels.sum(dtype=np.int64)]),
        "pixels": pixels,
    }


class OipServer:
    """Serves MODEL on a port of 127.0.0.1 until the `with` block ends. Its attributes may be changed meanwhile."""

    def __init__(self, *, port: int = 0, binary: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self.extensions = ["binary_tensor_data"] if binary else []
        self.takes_binary = binary
        self.ready = True
        self.model_ready = True
        self.model = MODEL
        self.answer: Callable[[Arrays], Arrays] = answer
        self.metadata: Json = {"name": MODEL, "platform": "tests", "inputs": INPUTS, "outputs": OUTPUTS}
        self.edit: Callable[[Json], None] = lambda _reply: None
        """Changes the JSON of an inference's reply before it goes."""
        self.faults: list[Fault] = []
        """What happens to the next inferences, one after the other, in place of an answer."""
        self.inference: Fault | None = None
        """What happens to every inference in place of an answer."""
        self.fault: Fault | None = None
        """What happens to every request in place of an answer."""
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.heads: list[Json] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._tls = tls
        self._live: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends at once: every connection is shut."""
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self.close_connections()
        self._server.server_close()

    def close_connections(self) -> None:
        """As a server does with connections that it finds idle."""
        for connection in list(self._live):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def opened(self, connection: socket.socket) -> socket.socket:
        self.connections += 1
        self._live.add(connection)
        return self._tls.wrap_socket(connection, server_side=True) if self._tls else connection

    def closed(self, connection: socket.socket) -> None:
        self._live.discard(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, place: tuple[str, int], owner: OipServer) -> None:
        super().__init__(place, Exchange)
        self.owner = owner

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            with self.owner.opened(request) as connection:
                Exchange(connection, client_address, self)
        except OSError:  # the client went away, as some do
            return
        finally:
            self.owner.closed(request)


class Exchange(BaseHTTPRequestHandler):
    """One connection; a Fault gets it when the request has been read."""

    protocol_version = "HTTP/1.1"
    server: _Server
    wbufsize = 65536

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def owner(self) -> OipServer:
        return self.server.owner

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called there
        """Says nothing."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        owner = self.owner
        owner.requests.append(f"{self.command} {self.path}")
        owner.headers.append({name.lower(): value for name, value in self.headers.items()})
        infers = self.path == f"/v2/models/{owner.model}/infer"
        fault = owner.fault
        if fault is None and infers:
            fault = owner.faults.pop(0) if owner.faults else owner.inference
        if fault is not None:
            fault(self)
        elif infers:
            self._infer(body)
        else:
            self._tell()

    def _tell(self) -> None:
        owner = self.owner
        told: dict[str, tuple[int, Json]] = {
            "/v2": (200, {"name": "tests", "version": "1", "extensions": owner.extensions}),
            "/v2/health/ready": (200 if owner.ready else 503, {}),
            f"/v2/models/{owner.model}": (200, owner.metadata),
            f"/v2/models/{owner.model}/ready": (200 if owner.model_ready else 400, {}),
        }
        status, said = told.get(self.path, (404, {"error": "no such model"}))
        self.reply(json.dumps(said).encode(), status=status)

    def _infer(self, body: bytes) -> None:
        length = int(self.headers.get(_HEAD_LENGTH, len(body)))
        if length < len(body) and not self.owner.takes_binary:
            self.reply(b'{"error": "the body is not JSON"}', status=400)
            return
        head = json.loads(body[:length])
        self.owner.heads.append(head)
        outputs = self.owner.answer(_inputs(head, body[length:]))
        wanted = [output["name"] for output in head["outputs"]]
        binary = all(output.get("parameters", {}).get("binary_data") for output in head["outputs"])
        reply: Json = {"model_name": self.owner.model, "id": head["id"], "outputs": []}
        tail = b""
        for name in wanted:
            described, raw = _described(name, outputs[name], binary=binary)
            reply["outputs"].append(described)
            tail += raw
        self.owner.edit(reply)
        text = json.dumps(reply).encode()
        self.reply(text + tail, headers={_HEAD_LENGTH: str(len(text))} if binary else {})

    def reply(self, body: bytes, status: int = 200, headers: Mapping[str, str] = _NONE) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def reset(self) -> None:
        """With a linger time of zero, closing sends a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.close_connection = True

    def drip(self, piece: bytes) -> None:
        while not self.owner.stopping.wait(_DRIP_S):
            self.send(piece)
        self.close_connection = True


def _inputs(head: Json, tail: bytes) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for tensor in head["inputs"]:
        kind = _NUMPY[tensor["datatype"]]
        if "data" in tensor:
            array: npt.NDArray[Any] = np.array(tensor["data"], kind)
        else:
            size = tensor["parameters"]["binary_data_size"]
            array, tail = np.frombuffer(tail[:size], kind), tail[size:]
        arrays[tensor["name"]] = array.reshape(tensor["shape"])
    assert not tail
    return arrays


def _described(name: str, array: npt.NDArray[Any], *, binary: bool) -> tuple[Json, bytes]:
    datatype = next(word for word, kind in _NUMPY.items() if array.dtype == kind)
    described: Json = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    if not binary:
        return described | {"data": array.ravel().tolist()}, b""
    raw = array.tobytes()
    return described | {"parameters": {"binary_data_size": len(raw)}}, raw


# Faults. Each stands in for an answer.


def silence(exchange: Exchange) -> None:
    exchange.connection.recv(1)  # until the client has had enough
    exchange.close_connection = True


def busy(exchange: Exchange) -> None:
    exchange.reply(b'{"error": "busy"}', status=503)


def busy_until(retry_after: str) -> Fault:
    return lambda exchange: exchange.reply(b'{"error": "busy"}', status=503, headers={"Retry-After": retry_after})


def failing(status: int, words: str) -> Fault:
    return lambda exchange: exchange.reply(json.dumps({"error": words}).encode(), status=status)


def drip_headers(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    exchange.drip(b"a")


def drip_body(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    exchange.drip(b"a")


def drip_chunks(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    exchange.drip(b"1\r\na\r\n")


def endless_continue(exchange: Exchange) -> None:
    exchange.drip(b"HTTP/1.1 100 Continue\r\n\r\n")


def cut_in_headers(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    exchange.close_connection = True


def cut_in_body(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
    exchange.close_connection = True


def reset_in_body(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
    exchange.owner.stopping.wait(_DRIP_S)
    exchange.reset()


def hang_up(exchange: Exchange) -> None:
    exchange.close_connection = True


def reset(exchange: Exchange) -> None:
    exchange.reset()


def garbage(exchange: Exchange) -> None:
    exchange.send(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
    exchange.close_connection = True


def endless_body(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not exchange.owner.stopping.is_set():
        exchange.send(b"10000\r\n" + b"a" * 65536 + b"\r\n")


def endless_headers(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\n")
    while not exchange.owner.stopping.is_set():
        exchange.send(b"X-Flood: " + b"a" * 1000 + b"\r\n")


def unsized(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\n\r\n{}")
    exchange.close_connection = True


def negative_chunk(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
    exchange.drip(b"a" * 1000)


def lying_length(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nabc")
    exchange.close_connection = True


def empty(exchange: Exchange) -> None:
    exchange.reply(b"")


def no_json(exchange: Exchange) -> None:
    exchange.reply(b"<html>a proxy's page</html>")
