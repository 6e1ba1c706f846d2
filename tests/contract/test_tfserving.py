"""TensorFlow Serving's client by REST, against a small server that speaks its protocol and can be told what to say."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
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
from shared.tensors import Artifact, TensorSpec
from tests.servers import ROOT, environ

IMAGE = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
WHOLE = {"boxes": [[[0.5, 1.5, 2.5, 3.5]]], "scores": [[[0.25, 1]]]}
PREDICT = "/v1/models/own.detector:predict"
STATUS = "/v1/models/own.detector"
SILENT_S = 2.0


class Fake:
    """The model `own.detector` as TensorFlow Serving would have it. `answers` holds, by path, a status and a body that
    it gives instead; `asked` what it was asked."""

    def __init__(self) -> None:
        self.states = ["AVAILABLE"]
        self.outputs: dict[str, Any] = dict(WHOLE)
        self.answers: dict[str, tuple[int, str | bytes]] = {}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.silent = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(b"")

            def do_POST(self) -> None:
                self.answer(self.rfile.read(int(self.headers["Content-Length"])))

            def answer(self, body: bytes) -> None:
                fake.asked.append((self.path, dict(self.headers), json.loads(body or b"null")))
                if fake.silent.is_set():
                    threading.Event().wait(SILENT_S)
                status, text = fake.answers.get(self.path) or fake.usual(self.path)
                data = text if isinstance(text, bytes) else text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(OSError):  # a client that has stopped waiting
                    self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def usual(self, path: str) -> tuple[int, str]:
        if path == STATUS:
            versions = [{"version": str(n), "state": state} for n, state in enumerate(self.states)]
            return 200, json.dumps({"model_version_status": versions})
        if path == f"{STATUS}/metadata":
            return 200, json.dumps({"metadata": {"signature_def": {"signature_def": SIGNATURES}}})
        if path == PREDICT:
            alone = next(iter(self.outputs.values())) if len(self.outputs) == 1 else self.outputs
            return 200, json.dumps({"outputs": alone}, indent=4)
        return 404, json.dumps({"error": "Could not find any versions of model"})


def _tensor(dtype: str, *sides: int) -> dict[str, Any]:
    return {"dtype": dtype, "tensor_shape": {"dim": [{"size": str(side), "name": ""} for side in sides]}}


SIGNATURES = {
    "serving_default": {
        "inputs": {"image": _tensor("DT_UINT8", 1, -1, -1, 3)},
        "outputs": {"boxes": _tensor("DT_FLOAT", 1, -1, 4), "scores": _tensor("DT_FLOAT", 1, -1, 2)},
        "method_name": "tensorflow/serving/predict",
    },
    "__saved_model_init_op": {"outputs": {"init": {"dtype": "DT_INVALID", "tensor_shape": {"unknown_rank": True}}}},
}
INPUTS = (TensorSpec("image", "uint8", (1, None, None, 3)),)
OUTPUTS = (TensorSpec("boxes", "float32", (1, None, 4)), TensorSpec("scores", "float32", (1, None, 2)))


def network(**changed: Any) -> NetworkSpec:
    fields: dict[str, Any] = {"inputs": INPUTS, "outputs": OUTPUTS, "artifacts": {}, "served_as": "own.detector"}
    return NetworkSpec("own", "1", "detector", Path("nowhere"), **fields | changed)


@pytest.fixture
def fake() -> Iterator[Fake]:
    fake = Fake()
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


def settings(fake: Fake, **others: Any) -> Settings:
    return Settings(backend="tfserving", backend_url=fake.url, **{"retries": 0, **others})


@contextmanager
def opened(fake: Fake, spec: NetworkSpec | None = None, **others: Any) -> Iterator[Run]:
    run = connect("tfserving", settings(fake, **others)).open(spec or network())
    try:
        yield run
    finally:
        run.close()


def answer(fake: Fake, **others: Any) -> dict[str, Any]:
    with opened(fake, **others) as run:
        return dict(run({"image": IMAGE}, Call("test", 10)))


def refusal(fake: Fake, **others: Any) -> Failure:
    with pytest.raises(Failure) as raised:
        answer(fake, **others)
    return raised.value


def test_a_picture_goes_in_columns_and_comes_back_as_declared(fake: Fake) -> None:
    outputs = answer(fake)
    path, headers, body = fake.asked[-1]
    assert (path, headers["Content-Type"]) == (PREDICT, "application/json")
    assert body == {"signature_name": "serving_default", "inputs": {"image": IMAGE.tolist()}}
    assert {name: (array.dtype.name, array.tolist()) for name, array in outputs.items()} == {
        name: ("float32", value) for name, value in WHOLE.items()
    }


def test_a_single_output_comes_without_its_name(fake: Fake) -> None:
    fake.outputs = {"boxes": WHOLE["boxes"]}
    with opened(fake, network(outputs=OUTPUTS[:1])) as run:
        assert run({"image": IMAGE}, Call("test", 10))["boxes"].shape == (1, 1, 4)


def test_the_bundle_says_which_signature_is_called(fake: Fake) -> None:
    artifact = Artifact("saved_model.pb", "0" * 64, signature="raw")
    with pytest.raises(ConfigurationError, match=r"has no signature 'raw', only \['serving_default'\]"):
        connect("tfserving", settings(fake)).open(network(artifacts={"tensorflow": artifact}))


def test_numbers_that_are_not_finite_are_read(fake: Fake) -> None:
    fake.answers[PREDICT] = 200, '{"outputs": {"boxes": [[[NaN, Infinity, -Infinity, 1]]], "scores": [[[1, 2]]]}}'
    np.testing.assert_array_equal(answer(fake)["boxes"], np.array([[[np.nan, np.inf, -np.inf, 1]]], np.float32))


def test_a_token_is_sent(fake: Fake) -> None:
    answer(fake, backend_token="secret")
    assert {headers.get("Authorization") for _, headers, _ in fake.asked} == {"Bearer secret"}


def test_a_model_below_a_prefix_is_found_there(fake: Fake) -> None:
    fake.url += "/serving"
    with pytest.raises(ConfigurationError, match="has no model"):
        answer(fake)
    assert fake.asked[0][0] == f"/serving{STATUS}"


STATES: dict[str, tuple[list[str], type[Exception], str]] = {
    "loading": (["LOADING"], ServerBusy, "still loading"),
    "about to load": (["END", "START"], ServerBusy, "still loading"),
    "not loadable": (["END"], ConfigurationError, "no version of model 'own.detector' loaded, only END"),
    "without a version": ([], ConfigurationError, "only none"),
}


@pytest.mark.parametrize("case", STATES)
def test_a_model_that_is_not_loaded_is_not_opened(case: str, fake: Fake) -> None:
    fake.states, kind, message = STATES[case]
    with pytest.raises(kind, match=message):
        answer(fake)


def test_an_older_version_answers_while_the_next_one_loads(fake: Fake) -> None:
    fake.states = ["AVAILABLE", "LOADING"]
    assert answer(fake)


def test_a_model_that_the_server_does_not_have_is_named(fake: Fake) -> None:
    message = r"^own: networks\.detector: the model server has no model 'other'$"
    with pytest.raises(ConfigurationError, match=message):
        connect("tfserving", settings(fake)).open(network(served_as="other"))


def test_a_tensor_that_the_server_does_not_have_is_named(fake: Fake) -> None:
    with pytest.raises(ConfigurationError, match=r"outputs: there is no 'masks' on the model server"):
        answer(fake, spec=network(outputs=(TensorSpec("masks", "float32", (1, 4)),)))


@pytest.mark.parametrize("body", ["", "<html>", "{}", '{"model_version_status": 3}', "[" * 100_000])
def test_a_description_that_is_none_is_the_server_s_failure(body: str, fake: Fake) -> None:
    fake.answers[STATUS] = 200, body
    assert isinstance(refusal(fake), ServerFailed)


REFUSALS: dict[str, tuple[int, str, type[Failure]]] = {
    "a wrong input": (400, "input size does not match signature", ServerFailed),
    "a bug": (500, "internal", ServerFailed),
    "no key": (401, "who are you", ServerFailed),
    "no memory": (429, "OOM when allocating tensor with shape[1,64]", OutOfMemory),
    "no memory on the device": (500, "CUDA_ERROR_OUT_OF_MEMORY: out of memory", OutOfMemory),
    "too many requests": (429, "try later", ServerBusy),
    "a full queue": (503, "The batch scheduling queue is full", ServerBusy),
    "a model that went away": (404, "Servable not found for request: Latest(own.detector)", ServerBusy),
    "its own limit": (504, "Timed out", ServerTimeout),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_an_error_of_the_server_s_is_one_of_ours(case: str, fake: Fake) -> None:
    status, words, kind = REFUSALS[case]
    fake.answers[PREDICT] = status, json.dumps({"error": words})
    failure = refusal(fake)
    assert type(failure) is kind
    assert words not in failure.message


def test_the_server_s_words_go_into_the_log(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.answers[PREDICT] = 400, '{ "error": "input size does not match signature" }'
    assert "log tells more" in refusal(fake).message
    assert "own: networks.detector: failed on the model server: status 400" in caplog.text
    assert "input size does not match signature" in caplog.text


BROKEN: dict[str, str | bytes] = {
    "nothing": "",
    "no JSON": b"\xff\x00",
    "half of it": '{"outputs": {"boxes": [[[0.5, 1.5',
    "another object": '{"predictions": []}',
    "a list": "[1]",
    "ragged lists": '{"outputs": {"boxes": [[[1, 2, 3, 4], [1]]], "scores": [[[1, 2]]]}}',
    "text": '{"outputs": {"boxes": "x", "scores": [[[1, 2]]]}}',
    "bytes": '{"outputs": {"boxes": [[{"b64": "AA=="}]], "scores": [[[1, 2]]]}}',
    "depth": "[" * 100_000,
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_reply_that_is_none_is_the_server_s_failure(case: str, fake: Fake) -> None:
    fake.answers[PREDICT] = 200, BROKEN[case]
    failure = refusal(fake)
    assert type(failure) is ServerFailed
    assert failure.message == "the model server's reply cannot be read; the log tells more under the request id"


@pytest.mark.parametrize("outputs", [{"boxes": [[[1, 2, 3, 4]]], "x": 1}, {**WHOLE, "boxes": [[1, 2, 3, 4]]}])
def test_outputs_other_than_declared_are_a_mismatch(outputs: dict[str, Any], fake: Fake) -> None:
    fake.outputs = outputs
    assert isinstance(refusal(fake), ModelOutputMismatch)


def test_a_server_that_says_nothing_is_not_waited_for(fake: Fake) -> None:
    with opened(fake, backend_timeout_s=0.3) as run:
        fake.silent.set()
        begin = monotonic()
        with pytest.raises(ServerTimeout):
            run({"image": IMAGE}, Call("test", 10))
        assert monotonic() - begin < SILENT_S / 2
        fake.silent.clear()


def test_a_server_that_is_not_there_is_unreachable(fake: Fake) -> None:
    fake.url = "http://127.0.0.1:1"
    with pytest.raises(ServerUnreachable):
        answer(fake)


READINESS: dict[str, tuple[Callable[[Fake], object], bool]] = {
    "available": (lambda fake: None, True),
    "loading": (lambda fake: setattr(fake, "states", ["LOADING"]), False),
    "gone": (lambda fake: fake.answers.update({STATUS: (404, "{}")}), False),
    "failing": (lambda fake: fake.answers.update({STATUS: (500, "")}), False),
    "talking nonsense": (lambda fake: fake.answers.update({STATUS: (200, "<html>")}), False),
}


@pytest.mark.parametrize("case", READINESS)
def test_a_network_is_ready_while_the_server_has_it_loaded(case: str, fake: Fake) -> None:
    change, ready = READINESS[case]
    with opened(fake) as run:
        change(fake)
        assert run.ready() is ready


def test_a_process_that_forwards_by_rest_needs_neither_grpc_nor_protobuf() -> None:
    script = (
        "import sys, shared.backends.tfserving; print({'grpc', 'google.protobuf', 'tensorflow'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environ({}), capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"
