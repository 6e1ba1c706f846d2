"""The gRPC client of Open Inference Protocol servers, against a small real server that misbehaves as it is told."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

pytest.importorskip("grpc")

import grpc
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs

from shared.backends import Run, connect
from shared.call import Call
from shared.errors import (
    ConfigurationError,
    Failure,
    ModelOutputMismatch,
    OutOfMemory,
    ServerBusy,
    ServerFailed,
    ServerTimeout,
    ServerUnreachable,
)
from shared.manifest import NetworkSpec
from shared.settings import Settings
from shared.tensors import TensorSpec
from tests.hostile_server import self_signed
from tests.servers import ROOT, environ, free_port

pytestmark = pytest.mark.servers
NETWORK = NetworkSpec(
    "own",
    "1",
    "detector",
    Path(),
    (TensorSpec("x", "float32", (None, 3)),),
    (TensorSpec("y", "float32", (None, 3)),),
    {},
    "own.detector",
)
X = np.array([[1, 2, 3]], np.float32)
Abort = tuple[grpc.StatusCode, str]


class Servicer(stubs.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """y = 2 x, unless told otherwise."""

    def __init__(self) -> None:
        self.asked = 0
        self.metadata: list[dict[str, Any]] = []
        self.aborts: list[Abort] = []
        self.edit: Callable[[Any], None] = lambda _reply: None
        self.ready = True
        self.slow_s = 0.0

    def _begin(self, context: grpc.ServicerContext) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        if self.slow_s:
            left = threading.Event()
            context.add_callback(left.set)
            left.wait(self.slow_s)
        if self.aborts:
            context.abort(*self.aborts.pop(0))

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - as the protocol calls it
        return messages.ServerReadyResponse(ready=self.ready)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - as the protocol calls it
        return messages.ModelReadyResponse(ready=self.ready)

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - as the protocol calls it
        self._begin(context)
        reply = messages.ModelMetadataResponse(name=request.name)
        reply.inputs.add(name="x", datatype="FP32", shape=[-1, 3])
        reply.outputs.add(name="y", datatype="FP32", shape=[-1, 3])
        return reply

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - as the protocol calls it
        self.asked += 1
        self._begin(context)
        x = np.frombuffer(request.raw_input_contents[0], np.float32)
        reply = messages.ModelInferResponse(model_name=request.model_name, id=request.id)
        reply.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
        reply.raw_output_contents.append((2 * x).tobytes())
        self.edit(reply)
        return reply


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
def port(servicer: Servicer) -> Iterator[int]:
    server, port = served(servicer)
    yield port
    server.stop(None).wait()


def served(servicer: Servicer, credentials: grpc.ServerCredentials | None = None) -> tuple[grpc.Server, int]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    stubs.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    place = "127.0.0.1:0"
    port = server.add_secure_port(place, credentials) if credentials else server.add_insecure_port(place)
    server.start()
    return server, port


@pytest.fixture
def run(port: int) -> Run:
    return open_(port)


def open_(port: int, **settings: Any) -> Run:
    url = f"grpc://127.0.0.1:{port}"
    return connect("triton", Settings(backend="triton", backend_protocol="grpc", backend_url=url, **settings)).open(
        NETWORK
    )


def ask(run: Run, timeout_s: float = 5) -> list[float]:
    outputs = run({"x": X}, Call("request-1", timeout_s))
    values: list[float] = outputs["y"].ravel().tolist()
    return values


def test_a_network_answers_by_name(run: Run) -> None:
    assert ask(run) == [2, 4, 6]


def test_the_token_goes_with_every_request(servicer: Servicer, port: int) -> None:
    ask(open_(port, backend_token="secret"))
    assert [told["authorization"] for told in servicer.metadata] == ["Bearer secret", "Bearer secret"]


def test_values_may_come_without_bytes(servicer: Servicer, run: Run) -> None:
    def typed(reply: Any) -> None:
        del reply.raw_output_contents[:]
        reply.outputs[0].contents.fp32_contents.extend([1, 2, 3])

    servicer.edit = typed
    assert ask(run) == [1, 2, 3]


CODE = grpc.StatusCode
REFUSALS: list[tuple[Abort, type[Failure]]] = [
    ((CODE.INVALID_ARGUMENT, "unexpected inference input"), ServerFailed),
    ((CODE.INTERNAL, "it broke at /opt/model.py"), ServerFailed),
    ((CODE.INTERNAL, "CUDA out of memory"), OutOfMemory),
    ((CODE.NOT_FOUND, "unknown model"), ServerBusy),
    ((CODE.RESOURCE_EXHAUSTED, "too many"), ServerBusy),
    ((CODE.UNAVAILABLE, "Exceeds maximum queue size"), ServerBusy),
]


@pytest.mark.parametrize(("abort", "kind"), REFUSALS, ids=lambda value: str(value)[:40])
def test_what_the_server_says_is_no_message_of_ours(
    servicer: Servicer, run: Run, abort: Abort, kind: type[Failure]
) -> None:
    servicer.aborts = [abort] * 3
    with pytest.raises(kind) as caught:
        ask(run)
    assert type(caught.value) is kind
    assert abort[1] not in caught.value.message
    assert caught.value.status != 503 or caught.value.retry_after_s


def test_busy_is_tried_again(servicer: Servicer, run: Run) -> None:
    servicer.aborts = [(CODE.UNAVAILABLE, "Exceeds maximum queue size")] * 2
    assert ask(run) == [2, 4, 6]
    assert servicer.asked == 3


def test_what_the_server_refuses_is_not_asked_again(servicer: Servicer, run: Run) -> None:
    servicer.aborts = [(CODE.INTERNAL, "broken")]
    with pytest.raises(ServerFailed):
        ask(run)
    assert servicer.asked == 1


@pytest.mark.parametrize("code", [CODE.UNAUTHENTICATED, CODE.PERMISSION_DENIED])
def test_a_server_that_does_not_let_us_in_is_a_wrong_setting(servicer: Servicer, port: int, code: Any) -> None:
    servicer.aborts = [(code, "no entry")]
    with pytest.raises(ConfigurationError, match="BACKEND_TOKEN"):
        open_(port)


def test_a_model_that_the_server_has_not_is_a_wrong_setting(servicer: Servicer, port: int) -> None:
    servicer.aborts = [(CODE.NOT_FOUND, "Request for unknown model: 'own.detector' is not found")]
    with pytest.raises(ConfigurationError, match=r"has no model 'own\.detector'"):
        open_(port)


def test_a_model_without_available_versions_is_busy(servicer: Servicer, port: int) -> None:
    servicer.aborts = [(CODE.NOT_FOUND, "Request for unknown model: 'own.detector' has no available versions")]
    with pytest.raises(ServerBusy):
        open_(port)


def test_a_model_that_is_not_ready_is_busy(servicer: Servicer, port: int, run: Run) -> None:
    servicer.ready = False
    assert not run.ready()
    with pytest.raises(ServerBusy):
        open_(port)


WRONG: dict[str, tuple[Callable[[Any], None], type[Failure]]] = {
    "id": (lambda reply: setattr(reply, "id", "request-2"), ServerFailed),
    "name": (lambda reply: setattr(reply.outputs[0], "name", "z"), ModelOutputMismatch),
    "dtype": (lambda reply: setattr(reply.outputs[0], "datatype", "INT32"), ModelOutputMismatch),
    "size": (lambda reply: setattr(reply.outputs[0], "datatype", "FP64"), ServerFailed),
    "shape": (lambda reply: reply.outputs[0].shape.__setitem__(0, -1), ServerFailed),
    "number": (lambda reply: reply.raw_output_contents.append(b""), ServerFailed),
}


@pytest.mark.parametrize(("edit", "kind"), WRONG.values(), ids=WRONG)
def test_an_answer_that_is_wrong_is_refused(
    servicer: Servicer, run: Run, edit: Callable[[Any], None], kind: type[Failure]
) -> None:
    servicer.edit = edit
    with pytest.raises(kind):
        ask(run)


def test_a_server_that_speaks_no_grpc_times_out_or_is_unreachable() -> None:
    begin = monotonic()
    with pytest.raises((ServerUnreachable, ServerTimeout)):
        open_(free_port())
    assert monotonic() - begin < 2.5


def test_a_thousand_failures_leave_nothing_behind(servicer: Servicer, port: int, run: Run) -> None:
    ask(run)
    gone = connect(
        "triton", Settings(backend="triton", backend_protocol="grpc", backend_url=f"grpc://127.0.0.1:{free_port()}")
    )
    threads, descriptors = system_threads(), open_descriptors()
    for number in range(760):
        servicer.aborts = [(CODE.INTERNAL, "broken")]
        with pytest.raises(ServerFailed):
            ask(run)
        if number % 20 == 0:
            with pytest.raises(ServerUnreachable):
                gone.open(NETWORK)
    servicer.slow_s = 2
    for _ in range(200):
        with pytest.raises(ServerTimeout):
            ask(run, timeout_s=0.01)
    servicer.slow_s = 0
    assert ask(run) == [2, 4, 6]
    assert settled(lambda: system_threads() <= threads + 8 and open_descriptors() <= descriptors + 16)


def settled(wanted: Callable[[], bool]) -> bool:
    """Whether it comes true within a few seconds: gRPC clears up behind the calls."""
    stop, ends_at = threading.Event(), monotonic() + 5
    while not wanted() and monotonic() < ends_at:
        stop.wait(0.05)
    return wanted()


def system_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_trusted_certificate_is_believed_and_no_other(servicer: Servicer, tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path, "127.0.0.1")
    key = tmp_path / "127.0.0.1.key"
    pair = [(key.read_bytes(), certificate.read_bytes())]
    server, port = served(servicer, grpc.ssl_server_credentials(pair))
    command = [sys.executable, "-c", _ASK, f"grpcs://127.0.0.1:{port}"]
    believed = {"SSL_CERT_FILE": str(certificate)}
    told = [
        subprocess.run(command, cwd=ROOT, env=environ(settings), check=True, capture_output=True, text=True).stdout
        for settings in (believed, {})
    ]
    server.stop(None).wait()
    assert told == ["True\n", "ServerFailed\n"]


_ASK = """
import sys
from shared.backends.triton_grpc import TritonGrpcBackend
from shared.errors import Failure
from shared.settings import Settings
from tests.contract.test_triton_grpc import NETWORK
backend = TritonGrpcBackend(Settings(backend="triton", backend_protocol="grpc", backend_url=sys.argv[1]))
try:
    print(backend.open(NETWORK).ready())
except Failure as failure:
    print(type(failure).__name__)
"""


def test_a_forked_process_makes_a_channel_of_its_own(port: int) -> None:
    command = [sys.executable, "-c", _FORK, f"grpc://127.0.0.1:{port}"]
    told = subprocess.run(command, cwd=ROOT, env=environ({}), check=True, capture_output=True, timeout=30).stdout
    assert told == b"True True 7\n"


_FORK = """
import os, sys
from shared.backends.triton_grpc import TritonGrpcBackend
from shared.settings import Settings
from tests.contract.test_triton_grpc import NETWORK
settings = Settings(backend="triton", backend_protocol="grpc", backend_url=sys.argv[1])
run = TritonGrpcBackend(settings).open(NETWORK)
before = run.ready()
child = os.fork()
if not child:
    os._exit(7 if run.ready() else 1)
ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(before, run.ready(), ended)
"""
