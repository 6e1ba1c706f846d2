"""A Backend over the Open Inference Protocol, against a small real server: values, readiness, failures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

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
from tests import oip_server as oip
from tests.oip_server import MODEL, Fault, Json, OipServer, answer
from tests.servers import free_port

Arrays = dict[str, npt.NDArray[Any]]
NETWORK = NetworkSpec(
    bundle="own",
    version="1",
    network="detector",
    folder=Path(),
    inputs=(TensorSpec("x", "float32", (None, 3)), TensorSpec("pixels", "uint8", (1, None, 2, 3))),
    outputs=(
        TensorSpec("half", "float16", (None, 3)),
        TensorSpec("light", "bool", (None,)),
        TensorSpec("sum", "float32", (None, 3)),
        TensorSpec("total", "int64", (1,)),
    ),
    artifacts={},
    served_as=MODEL,
)


@pytest.fixture
def server() -> Iterator[OipServer]:
    with OipServer() as started:
        yield started


@pytest.fixture
def run(server: OipServer) -> Iterator[Run]:
    opened = open_(server)
    yield opened
    opened.close()


def open_(server: OipServer, network: NetworkSpec = NETWORK, **settings: Any) -> Run:
    return connect("triton", Settings(backend="triton", backend_url=server.url, **settings)).open(network)


def inputs(rows: int = 2) -> Arrays:
    random = np.random.default_rng(rows)
    return {
        "x": random.normal(size=(rows, 3)).astype(np.float32),
        "pixels": random.integers(0, 256, (1, 5, 2, 3), np.uint8),
    }


def ask(run: Run, given: Arrays | None = None, timeout_s: float = 5) -> Any:
    return run(given or inputs(), Call("request-1", timeout_s))


def same(found: Any, given: Arrays) -> None:
    wanted = answer(given)
    assert list(found) == [spec.name for spec in NETWORK.outputs]
    for name, array in found.items():
        assert array.dtype == wanted[name].dtype
        np.testing.assert_array_equal(array, wanted[name])


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_values_come_back_in_every_dtype(run: Run, rows: int) -> None:
    given = inputs(rows)
    same(ask(run, given), given)


def test_tensors_travel_as_bytes_where_the_server_takes_them(server: OipServer, run: Run) -> None:
    ask(run)
    assert not [tensor for tensor in server.heads[0]["inputs"] if "data" in tensor]
    assert server.heads[0]["id"] == "request-1"


def test_only_the_declared_outputs_are_asked_for(server: OipServer, run: Run) -> None:
    ask(run)
    assert [output["name"] for output in server.heads[0]["outputs"]] == [spec.name for spec in NETWORK.outputs]


def test_arrays_that_do_not_lie_in_a_row_are_sent_as_they_read(run: Run) -> None:
    given = inputs()
    turned = {"x": np.asfortranarray(given["x"]), "pixels": given["pixels"][:, ::-1]}
    same(ask(run, turned), turned)


def test_a_server_that_knows_no_bytes_is_spoken_to_in_json() -> None:
    with OipServer(binary=False) as server:
        run, given = open_(server), inputs()
        same(ask(run, given), given)
        same(ask(run, given), given)
        assert server.requests.count(f"POST /v2/models/{MODEL}/infer") == 3  # the first found out
        run.close()


def test_a_server_that_takes_bytes_without_saying_so_gets_bytes(server: OipServer) -> None:
    server.extensions = []
    run = open_(server)
    ask(run)
    assert server.requests.count(f"POST /v2/models/{MODEL}/infer") == 1
    run.close()


def test_json_that_is_no_number_is_one() -> None:
    with OipServer(binary=False) as server:
        run = open_(server)
        server.edit = lambda reply: _output(reply, "sum").update(data=[None, 1, 2], shape=[1, 3])
        assert np.isnan(ask(run)["sum"][0, 0])
        run.close()


def _output(reply: Json, name: str) -> Json:
    (output,) = [output for output in reply["outputs"] if output["name"] == name]
    found: Json = output
    return found


def test_a_model_that_the_server_has_not_is_a_wrong_setting(server: OipServer) -> None:
    with pytest.raises(ConfigurationError, match=r"the model server has no model 'own\.other'"):
        open_(server, msgspec.structs.replace(NETWORK, served_as="own.other"))


def test_a_model_that_is_not_ready_is_busy(server: OipServer) -> None:
    server.model_ready = False
    with pytest.raises(ServerBusy, match="not ready") as caught:
        open_(server)
    assert caught.value.retry_after_s


def test_a_server_that_is_not_ready_has_not_lost_its_models(server: OipServer) -> None:
    server.ready = False
    with pytest.raises(ServerBusy):
        open_(server, msgspec.structs.replace(NETWORK, served_as="own.other"))


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(ServerUnreachable):
        connect("triton", Settings(backend="triton", backend_url=f"http://127.0.0.1:{free_port()}")).open(NETWORK)


def test_a_silent_server_keeps_nobody_from_opening_for_long(server: OipServer) -> None:
    server.fault = oip.silence
    with pytest.raises(ServerTimeout, match="within 2 s"):
        open_(server)


@pytest.mark.parametrize(
    ("inputs_", "what"),
    [
        ([{"name": "y", "datatype": "FP32", "shape": [-1, 3]}], "there is no 'x' on the model server"),
        ([{"name": "x", "datatype": "UINT8", "shape": [-1, 3]}], "expected dtype uint8"),
        ([{"name": "x", "datatype": "FP32", "shape": [4, 3]}], "expected shape"),
        ([*oip.INPUTS, {"name": "z", "datatype": "FP32", "shape": [1]}], r"also needed on the model server.*'z'"),
    ],
)
def test_a_model_that_is_another_one_is_found_out_before_it_is_used(
    server: OipServer, inputs_: list[Json], what: str
) -> None:
    server.metadata = server.metadata | {"inputs": inputs_}
    with pytest.raises(ConfigurationError, match=what):
        open_(server)


@pytest.mark.parametrize("metadata", [{}, {"inputs": [], "outputs": []}, {"inputs": None, "outputs": None}])
def test_a_server_that_says_nothing_of_its_model_is_asked_all_the_same(server: OipServer, metadata: Json) -> None:
    server.metadata = metadata
    run = open_(server)
    ask(run)
    run.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_does_not_let_us_in_is_a_wrong_setting(server: OipServer, status: int) -> None:
    server.fault = oip.failing(status, "no entry")
    with pytest.raises(ConfigurationError, match="BACKEND_TOKEN"):
        open_(server)


@pytest.mark.parametrize("fault", [oip.empty, oip.no_json, oip.failing(500, "x"), oip.failing(302, "x")])
def test_a_server_that_tells_nonsense_has_failed(server: OipServer, fault: Fault) -> None:
    server.fault = fault
    with pytest.raises(ServerFailed):
        open_(server)


REFUSALS: list[tuple[int, str, type[Failure]]] = [
    (400, "unexpected inference input", ServerFailed),
    (500, "it broke at /opt/model.py", ServerFailed),
    (404, "unknown model", ServerBusy),
    (429, "too many", ServerBusy),
    (502, "bad gateway", ServerFailed),
    (504, "gateway timeout", ServerTimeout),
    (500, "CUDA out of memory. Tried to allocate 2 GiB", OutOfMemory),
    (500, "Failed to allocate memory for requested buffer", OutOfMemory),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal[1][:20])
def test_what_the_server_says_is_logged_and_not_passed_on(
    server: OipServer, run: Run, refusal: tuple[int, str, type[Failure]], caplog: pytest.LogCaptureFixture
) -> None:
    status, said, kind = refusal
    server.faults.append(oip.failing(status, said))
    with caplog.at_level(logging.WARNING, "thinlens"), pytest.raises(kind) as caught:
        ask(run)
    assert type(caught.value) is kind
    assert said not in caught.value.message
    assert said in caplog.text
    assert {"request_id": "request-1"} in [getattr(record, "fields", None) for record in caplog.records]
    assert caught.value.status != 503 or caught.value.retry_after_s


def test_busy_is_tried_again_and_then_passed_on(server: OipServer) -> None:
    run = open_(server, retries=1)
    server.faults += [oip.busy, oip.busy_until("9")]
    with pytest.raises(ServerBusy) as caught:
        ask(run)
    assert caught.value.retry_after_s == 9
    server.faults += [oip.busy]
    ask(run)
    run.close()


WRONG: dict[str, tuple[Callable[[Json], None], type[Failure]]] = {
    "name": (lambda reply: _output(reply, "sum").update(name="other"), ModelOutputMismatch),
    "dtype": (lambda reply: _output(reply, "sum").update(datatype="INT32"), ModelOutputMismatch),
    "unknown dtype": (lambda reply: _output(reply, "light").update(datatype="FP8"), ServerFailed),
    "size for its dtype": (lambda reply: _output(reply, "sum").update(datatype="FP64"), ServerFailed),
    "shape": (lambda reply: _output(reply, "sum").update(shape=[3, 2]), ModelOutputMismatch),
    "size for its shape": (lambda reply: _output(reply, "sum").update(shape=[5, 3]), ServerFailed),
    "id": (lambda reply: reply.update(id="request-2"), ServerFailed),
    "outputs": (lambda reply: reply.update(outputs=reply["outputs"][:-1]), ServerFailed),
}


@pytest.mark.parametrize(("edit", "kind"), WRONG.values(), ids=WRONG)
def test_an_answer_that_is_wrong_is_refused(
    server: OipServer, run: Run, edit: Callable[[Json], None], kind: type[Failure]
) -> None:
    server.edit = edit
    with pytest.raises(kind) as caught:
        ask(run)
    assert caught.value.status == 502


def test_it_is_ready_as_long_as_the_server_says_so(server: OipServer, run: Run) -> None:
    assert run.ready()
    server.model_ready = False
    assert not run.ready()
    server.fault = oip.busy
    assert not run.ready()


def test_readiness_is_not_waited_for(server: OipServer, run: Run) -> None:
    server.fault = oip.silence
    assert not run.ready()


def test_a_server_that_is_gone_is_not_ready(server: OipServer, run: Run) -> None:
    server.stop()
    assert not run.ready()


def test_one_failure_does_not_turn_bytes_into_json_for_good() -> None:
    with OipServer(binary=False) as server:
        server.takes_binary = True
        run = open_(server)
        server.faults = [oip.failing(500, "once")]
        for _ in range(2):
            ask(run)
        assert all("data" not in sent for sent in server.heads[-1]["inputs"])
