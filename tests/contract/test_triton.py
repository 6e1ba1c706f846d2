"""The client of Open Inference Protocol servers against real ones: NVIDIA's Triton, KServe, MLServer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("grpc")
pytest.importorskip("geventhttpclient")

import onnxruntime as ort
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from shared.backends import Run, connect
from shared.call import Call
from shared.errors import (
    SERVER_FAILURES,
    ConfigurationError,
    OutOfMemory,
    ServerBusy,
    ServerFailed,
    ServerTimeout,
    ServerUnreachable,
)
from shared.manifest import NetworkSpec, read_bundle
from shared.settings import Settings
from shared.tensors import TensorSpec
from tests import model_servers
from tests.graphs import Input, write_bundle
from tests.model_servers import ModelServer
from tests.servers import free_port

pytestmark = pytest.mark.servers
PROTOCOLS = ("http", "grpc")
MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x, pixels, word = (
            pb.get_input_tensor_by_name(request, name).as_numpy() for name in ("x", "pixels", "word")
        )
        if word[0] == 1:
            return pb.InferenceResponse(error=pb.TritonError("it broke at /opt/model.py"))
        if word[0] == 2:
            return pb.InferenceResponse(error=pb.TritonError("CUDA out of memory. Tried to allocate 2.00 GiB"))
        if word[0] == 3:
            time.sleep(1)
        outputs = {
            "sum": 2 * x + 1,
            "half": (x / 2).astype(np.float16),
            "light": pixels.reshape(-1) > 127,
            "total": np.array([pixels.sum(dtype=np.int64)]),
            "pixels": pixels,
        }
        return pb.InferenceResponse([pb.Tensor(name, np.ascontiguousarray(value)) for name, value in outputs.items()])
"""
CONFIG = """
name: "own.detector"
backend: "python"
max_batch_size: 0
input [
  { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] },
  { name: "pixels" data_type: TYPE_UINT8 dims: [ 1, -1, -1, 3 ] },
  { name: "word" data_type: TYPE_INT32 dims: [ 1 ] }
]
output [
  { name: "sum" data_type: TYPE_FP32 dims: [ -1, 3 ] },
  { name: "half" data_type: TYPE_FP16 dims: [ -1, 3 ] },
  { name: "light" data_type: TYPE_BOOL dims: [ -1 ] },
  { name: "total" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "pixels" data_type: TYPE_UINT8 dims: [ 1, -1, -1, 3 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
NETWORK = NetworkSpec(
    bundle="own",
    version="1",
    network="detector",
    folder=Path(),
    inputs=(
        TensorSpec("x", "float32", (None, 3)),
        TensorSpec("pixels", "uint8", (1, None, None, 3)),
        TensorSpec("word", "int32", (1,)),
    ),
    outputs=(
        TensorSpec("sum", "float32", (None, 3)),
        TensorSpec("half", "float16", (None, 3)),
        TensorSpec("light", "bool", (None,)),
        TensorSpec("total", "int64", (1,)),
        TensorSpec("pixels", "uint8", (1, None, None, 3)),
    ),
    artifacts={},
    served_as="own.detector",
)
Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("repository")
    place = folder / "own.detector" / "1"
    place.mkdir(parents=True)
    (place / "model.py").write_text(MODEL, encoding="utf-8")
    (place.parent / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    with model_servers.triton(folder) as server:
        yield server


def open_(server: ModelServer, protocol: str, network: NetworkSpec = NETWORK, **settings: Any) -> Run:
    url = server.http_url if protocol == "http" else server.grpc_url
    chosen = Settings(backend="triton", backend_url=url, backend_protocol=protocol, **settings)  # type: ignore[arg-type]
    return connect("triton", chosen).open(network)


@pytest.fixture(params=PROTOCOLS)
def run(triton: ModelServer, request: pytest.FixtureRequest) -> Iterator[Run]:
    opened = open_(triton, request.param)
    yield opened
    opened.close()


def inputs(seed: int = 0, *, rows: int = 2, hw: tuple[int, int] = (5, 4), word: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    return {
        "x": random.normal(size=(rows, 3)).astype(np.float32),
        "pixels": random.integers(0, 256, (1, *hw, 3), np.uint8),
        "word": np.array([word], np.int32),
    }


def ask(run: Run, given: Arrays, timeout_s: float = 20) -> Any:
    return run(given, Call("request-1", timeout_s))


def plainly(server: ModelServer, protocol: str, given: Arrays) -> Arrays:
    """What NVIDIA's own client makes of it."""
    library: Any = triton_http if protocol == "http" else triton_grpc
    url = server.http_url if protocol == "http" else server.grpc_url
    client = library.InferenceServerClient(url.partition("://")[2])
    names = {"float32": "FP32", "uint8": "UINT8", "int32": "INT32"}
    tensors = []
    for name, array in given.items():
        tensors.append(library.InferInput(name, array.shape, names[array.dtype.name]))
        tensors[-1].set_data_from_numpy(array)
    wanted = [library.InferRequestedOutput(spec.name) for spec in NETWORK.outputs]
    result = client.infer("own.detector", tensors, outputs=wanted)
    client.close()
    return {spec.name: result.as_numpy(spec.name) for spec in NETWORK.outputs}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("hw", [(1, 1), (640, 640), (3000, 2000)])
def test_values_are_those_of_the_servers_own_client(triton: ModelServer, protocol: str, hw: tuple[int, int]) -> None:
    run, given = open_(triton, protocol), inputs(hw=hw)
    found, wanted = ask(run, given), plainly(triton, protocol, given)
    assert list(found) == list(wanted)
    for name, array in found.items():
        assert (array.dtype, array.shape) == (wanted[name].dtype, wanted[name].shape)
        np.testing.assert_array_equal(array, wanted[name])
    np.testing.assert_array_equal(found["sum"], 2 * given["x"] + 1)
    run.close()


def test_every_thread_gets_its_own_answer(run: Run) -> None:
    def one(seed: int) -> bool:
        given = inputs(seed, rows=seed % 5 + 1)
        found = ask(run, given)
        return bool((found["sum"] == 2 * given["x"] + 1).all() and (found["pixels"] == given["pixels"]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(200)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_the_server_has_not_is_a_wrong_setting(triton: ModelServer, protocol: str) -> None:
    with pytest.raises(ConfigurationError, match=r"the model server has no model 'own\.other'"):
        open_(triton, protocol, msgspec.structs.replace(NETWORK, served_as="own.other"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_is_another_one_is_found_out_before_it_is_used(triton: ModelServer, protocol: str) -> None:
    wrong = (TensorSpec("x", "uint8", (None, 3)), *NETWORK.inputs[1:])
    with pytest.raises(ConfigurationError, match="expected dtype float32 as on the model server, found uint8"):
        open_(triton, protocol, msgspec.structs.replace(NETWORK, inputs=wrong))


def test_what_the_model_says_stays_in_the_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ServerFailed) as caught:
        ask(run, inputs(word=1))
    assert "/opt" not in caught.value.message
    assert "it broke at /opt/model.py" in caplog.text


def test_out_of_memory_is_said_so(run: Run) -> None:
    with pytest.raises(OutOfMemory):
        ask(run, inputs(word=2))


def test_a_tensor_that_does_not_fit_is_the_servers_failure(run: Run) -> None:
    with pytest.raises(ServerFailed):
        ask(run, inputs() | {"x": np.zeros((2, 4), np.float32)})


def test_a_slow_model_is_given_up_when_the_time_is_over(run: Run) -> None:
    begin = monotonic()
    with pytest.raises(ServerTimeout):
        ask(run, inputs(word=3), timeout_s=0.3)
    assert monotonic() - begin < 0.6
    ask(run, inputs())


def test_it_is_ready(run: Run) -> None:
    assert run.ready()


def test_a_frozen_server_times_out_and_is_found_again(triton: ModelServer, run: Run) -> None:
    ask(run, inputs())
    triton.pause()
    try:
        begin = monotonic()
        with pytest.raises(ServerTimeout):
            ask(run, inputs(hw=(640, 640)), timeout_s=0.5)
        assert not run.ready()
        assert monotonic() - begin < 0.5 + 1 + 0.5
    finally:
        triton.resume()
    assert recovered_s(run) < 5


def test_a_killed_server_is_unreachable_and_found_again(triton: ModelServer, run: Run) -> None:
    triton.kill()
    try:
        for _ in range(20):
            with pytest.raises(ServerUnreachable):
                ask(run, inputs())
        assert not run.ready()
    finally:
        triton.start()
    assert recovered_s(run) < 5


def recovered_s(run: Run) -> float:
    begin = monotonic()
    while True:
        try:
            ask(run, inputs(), timeout_s=1)
        except SERVER_FAILURES:
            assert monotonic() - begin < 10
            sleep(0.05)
        else:
            return monotonic() - begin


def test_a_server_killed_under_load_leaves_no_question_without_an_answer(triton: ModelServer, run: Run) -> None:
    threads = threading.active_count()
    killer = threading.Timer(0.5, triton.kill)
    killer.start()

    def one(seed: int) -> str:
        begin = monotonic()
        try:
            given = inputs(seed)
            assert (ask(run, given, timeout_s=3)["sum"] == 2 * given["x"] + 1).all()
            return "answer"
        except SERVER_FAILURES as failure:
            return failure.code
        finally:
            assert monotonic() - begin < 3.5

    try:
        with ThreadPoolExecutor(8) as pool:
            until = monotonic() + 2
            ends: set[str] = set()
            while monotonic() < until:
                ends |= set(pool.map(one, range(40)))
    finally:
        killer.join()
        triton.start()
    assert ends > {"answer"}
    assert ends <= {"answer", "server_unreachable", "server_failed", "server_busy", "server_timeout"}
    assert threading.active_count() <= threads + 2
    assert recovered_s(run) < 5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_there_is_unreachable(protocol: str) -> None:
    url = f"{protocol}://127.0.0.1:{free_port()}"
    chosen = Settings(backend="triton", backend_url=url, backend_protocol=protocol)  # type: ignore[arg-type]
    with pytest.raises(ServerUnreachable) as caught:
        connect("triton", chosen).open(NETWORK)
    assert caught.value.retry_after_s


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "own", "yolo v8", Input(dtype="uint8", layout="NHWC"))


OTHERS = {"kserve": model_servers.kserve, "mlserver": model_servers.mlserver}


@pytest.fixture(scope="module", params=OTHERS)
def other(bundle: Path, request: pytest.FixtureRequest) -> Iterator[ModelServer]:
    started: AbstractContextManager[ModelServer] = OTHERS[request.param](bundle)
    with started as server:
        yield server


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_server_of_the_protocol_gives_the_graphs_own_values(
    other: ModelServer, bundle: Path, protocol: str
) -> None:
    network = read_bundle(bundle).network("detector")
    run = open_(other, protocol, network)
    image = np.random.default_rng(1).integers(0, 256, (1, 96, 96, 3), np.uint8)
    names = [spec.name for spec in network.outputs]
    session = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    wanted = dict(zip(names, session.run(names, {"image": image}), strict=True))
    for _ in range(3):
        found = ask(run, {"image": image})
        for name in names:
            np.testing.assert_array_equal(found[name], wanted[name])
    assert run.ready()
    run.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_server_that_has_not_the_model_is_a_wrong_setting(
    other: ModelServer, bundle: Path, protocol: str
) -> None:
    network = msgspec.structs.replace(read_bundle(bundle).network("detector"), served_as="own.other")
    with pytest.raises((ConfigurationError, ServerBusy), match="no model"):
        open_(other, protocol, network)
