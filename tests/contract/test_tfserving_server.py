"""TensorFlow Serving's client, by REST and gRPC, against the stand-in that runs a real SavedModel: the same answers."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from model_server.cli import main
from shared.backends import Run, connect
from shared.call import Call
from shared.errors import (
    SERVER_FAILURES,
    ConfigurationError,
    DeadlineExceeded,
    Failure,
    ServerBusy,
    ServerFailed,
    ServerTimeout,
    ServerUnreachable,
)
from shared.manifest import NetworkSpec, read_bundle
from shared.settings import Settings
from shared.tensors import TensorSpec
from tests.tfserving_server import TfServing, tfserving

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_serving")
pytestmark = pytest.mark.servers

DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")
BY_EITHER = pytest.mark.parametrize("protocol", ["http", "grpc"])
MANY = 30


def _save(folder: Path, name: str, function: Any, signature: str = "serving_default") -> dict[str, Any]:
    """Saves the function as a SavedModel and gives what model.json says of it as an artifact."""
    module = tf.Module()
    module.f = function
    tf.saved_model.save(module, str(folder / name), signatures={signature: function})
    names = ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
    sums = [hashlib.sha256((folder / name / file).read_bytes()).hexdigest() for file in names]
    data = [{"file": f"{name}/{file}", "sha256": sha} for file, sha in zip(names[1:], sums[1:], strict=True)]
    return {"file": f"{name}/saved_model.pb", "sha256": sums[0], "data": data, "signature": signature}


def _spec(name: str, dtype: str, shape: list[int | None]) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape}


def _echo(folder: Path, name: str, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """A network that gives back each of its inputs, transposed: a tensor of each dtype there and back."""
    specs = {f"in_{dtype}": tf.TensorSpec([2, None], dtype, name=f"in_{dtype}") for dtype in dtypes}

    @tf.function(input_signature=[specs])  # type: ignore[untyped-decorator]
    def echo(inputs: Any) -> Any:
        return {f"out_{dtype}": tf.transpose(inputs[f"in_{dtype}"]) for dtype in dtypes}

    return {
        "inputs": [_spec(f"in_{dtype}", dtype, [2, None]) for dtype in dtypes],
        "outputs": [_spec(f"out_{dtype}", dtype, [None, 2]) for dtype in dtypes],
        "artifacts": {"tensorflow": _save(folder, name, echo)},
    }


def _ratio(folder: Path) -> dict[str, Any]:
    """One picture in, one number for each pixel out, which is not finite where its last channel is 0."""

    taken = tf.TensorSpec([1, None, None, 3], tf.uint8, name="image")

    @tf.function(input_signature=[taken])  # type: ignore[untyped-decorator]
    def ratio(image: Any) -> Any:
        pixels = tf.cast(image, tf.float32)
        return {"ratio": pixels[..., 0] / pixels[..., 2]}

    return {
        "inputs": [_spec("image", "uint8", [1, None, None, 3])],
        "outputs": [_spec("ratio", "float32", [1, None, None])],
        "artifacts": {"tensorflow": _save(folder, "ratio", ratio, "pixels")},
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "own"
    folder.mkdir()
    networks = {
        "echo": _echo(folder, "echo", DTYPES),
        "plain": _echo(folder, "plain", tuple(dtype for dtype in DTYPES if dtype != "float16")),
        "ratio": _ratio(folder),
    }
    words = {"name": "own", "task": "detection", "family": "yolo", "licence": "none", "source": "made here"}
    (folder / "model.json").write_text(json.dumps({**words, "version": "3", "networks": networks, "labels": ["x"]}))
    return folder


@pytest.fixture(scope="module")
def repository(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repository") / "models"
    assert main(["tfserving", str(bundle), str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TfServing]:
    with tfserving(repository) as server:
        yield server


def settings(server: TfServing, protocol: Any, **others: Any) -> Settings:
    url = server.http_url if protocol == "http" else server.grpc_url
    return Settings(backend="tfserving", backend_protocol=protocol, backend_url=url, **others)


@contextmanager
def opened(server: TfServing, protocol: Any, spec: NetworkSpec, **others: Any) -> Iterator[Run]:
    backend = connect("tfserving", settings(server, protocol, **others))
    run = backend.open(spec)
    try:
        yield run
    finally:
        run.close()


def network(bundle: Path, name: str, **changed: Any) -> NetworkSpec:
    return msgspec.structs.replace(read_bundle(bundle).network(name), **changed)


def call() -> Call:
    return Call("test", 60)


def values(dtype: str, columns: int = 300) -> npt.NDArray[Any]:
    """Two rows with the extremes of the dtype and all sorts in between."""
    between = np.random.default_rng(0).normal(size=2 * columns) * 100
    if dtype == "bool":
        array = between > 0
    else:
        limits = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
        array = between.clip(limits.min, limits.max).astype(dtype)
        array[:2] = limits.min, limits.max
    return array.reshape(2, columns)


@pytest.mark.parametrize(("protocol", "name"), [("grpc", "echo"), ("grpc", "plain"), ("http", "plain")])
def test_every_dtype_comes_back_bit_by_bit(protocol: str, name: str, bundle: Path, server: TfServing) -> None:
    spec = network(bundle, name)
    inputs = {one.name: values(one.dtype) for one in spec.inputs}
    with opened(server, protocol, spec) as run:
        outputs = run(inputs, call())
    for one in spec.inputs:
        got = outputs[one.name.replace("in_", "out_")]
        assert got.dtype == one.dtype
        np.testing.assert_array_equal(got, inputs[one.name].T)


@BY_EITHER
def test_an_empty_tensor_keeps_its_shape(protocol: str, bundle: Path, server: TfServing) -> None:
    spec = network(bundle, "plain")
    inputs = {one.name: values(one.dtype)[:, :0] for one in spec.inputs}
    with opened(server, protocol, spec) as run:
        outputs = run(inputs, call())
    assert {array.shape for array in outputs.values()} == {(0, 2)}


@BY_EITHER
def test_numbers_that_are_not_finite_come_as_such(protocol: str, bundle: Path, server: TfServing) -> None:
    image = np.array([[[[1, 0, 0], [0, 0, 0], [1, 0, 3], [2, 0, 1]]]], np.uint8)
    with opened(server, protocol, network(bundle, "ratio")) as run:
        ratio = run({"image": image}, call())["ratio"]
        np.testing.assert_array_equal(
            ratio, np.array([[[np.inf, np.nan, np.float32(1) / np.float32(3), 2]]], np.float32)
        )


@BY_EITHER
def test_a_picture_arrives_whole(protocol: str, bundle: Path, server: TfServing) -> None:
    image = np.random.default_rng(0).integers(1, 256, (1, 200, 300, 3)).astype(np.uint8)
    with opened(server, protocol, network(bundle, "ratio")) as run:
        expected = image[..., 0].astype(np.float32) / image[..., 2].astype(np.float32)
        np.testing.assert_array_equal(run({"image": image}, call())["ratio"], expected)


@BY_EITHER
def test_outputs_that_nobody_declared_are_left_there(protocol: str, bundle: Path, server: TfServing) -> None:
    spec = network(bundle, "plain", outputs=(TensorSpec("out_float32", "float32", (None, 2)),))
    inputs = {one.name: values(one.dtype, 1) for one in spec.inputs}
    with opened(server, protocol, spec) as run:
        outputs = run(inputs, call())
    assert list(outputs) == ["out_float32"]


@BY_EITHER
def test_many_threads_ask_at_once(protocol: str, bundle: Path, server: TfServing) -> None:
    with opened(server, protocol, network(bundle, "ratio")) as run:
        answers: dict[int, float] = {}

        def ask(number: int) -> None:
            image = np.full((1, 8, 8, 3), (number, 0, 1), np.uint8)
            answers[number] = float(run({"image": image}, call())["ratio"].max())

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(MANY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {number: float(number) for number in range(MANY)}


WRONG: dict[str, tuple[str, Callable[[NetworkSpec], dict[str, Any]], str]] = {
    "a model that is not there": (
        "ratio", lambda _: {"served_as": "none"}, r"the model server has no model 'none'"
    ),
    "a signature": ("ratio", lambda _: {"artifacts": {}}, r"has no signature 'serving_default', only \['pixels'\]"),
    "an input's name": (
        "ratio",
        lambda _: {"inputs": (TensorSpec("picture", "uint8", (1, None, None, 3)),)},
        r"inputs: there is no 'picture' on the model server, only \['image'\]",
    ),
    "an output's dtype": (
        "ratio",
        lambda _: {"outputs": (TensorSpec("ratio", "float64", (1, None, None)),)},
        r"outputs: 'ratio': expected dtype float32 as on the model server, found float64",
    ),
    "an input's shape": (
        "ratio",
        lambda _: {"inputs": (TensorSpec("image", "uint8", (1, 3, None, None)),)},
        r"expected shape \[1, None, None, 3\] as on the model server",
    ),
    "a missing input": (
        "plain", lambda spec: {"inputs": spec.inputs[1:]}, r"also needed on the model server.*\['in_bool'\]"
    ),
}  # fmt: skip


@BY_EITHER
@pytest.mark.parametrize("case", WRONG)
def test_what_the_server_does_not_have_is_found_at_opening(
    case: str, protocol: str, bundle: Path, server: TfServing
) -> None:
    name, changed, message = WRONG[case]
    spec = network(bundle, name)
    spec = msgspec.structs.replace(spec, **changed(spec))
    with pytest.raises(ConfigurationError, match=rf"^own: networks\.{name}.*{message}"):
        connect("tfserving", settings(server, protocol)).open(spec)


def test_half_precision_needs_grpc(bundle: Path, server: TfServing) -> None:
    with pytest.raises(ConfigurationError, match=r"'in_float16' is float16.*THINLENS_BACKEND_PROTOCOL=grpc"):
        connect("tfserving", settings(server, "http")).open(network(bundle, "echo"))


@BY_EITHER
def test_an_error_of_the_server_s_goes_into_the_log_only(
    protocol: str, bundle: Path, server: TfServing, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(server, protocol, network(bundle, "ratio")) as run:
        with pytest.raises(ServerFailed) as raised:
            run({"picture": np.zeros((1, 1, 1, 3), np.uint8)}, call())
        assert (
            raised.value.message == "the model server failed on this picture; the log tells more under the request id"
        )
        assert "image" in caplog.text


@BY_EITHER
def test_a_call_whose_time_is_over_is_not_sent(protocol: str, bundle: Path, server: TfServing) -> None:
    with opened(server, protocol, network(bundle, "ratio")) as run, pytest.raises(DeadlineExceeded):
        run({"image": np.zeros((1, 1, 1, 3), np.uint8)}, Call("test", -1))


@BY_EITHER
def test_a_process_that_was_forked_asks_on_connections_of_its_own(
    protocol: str, bundle: Path, server: TfServing
) -> None:
    with opened(server, protocol, network(bundle, "ratio")) as run:
        image = np.full((1, 1, 1, 3), 7, np.uint8)
        run({"image": image}, call())
        child = os.fork()
        if child == 0:
            os._exit(int(run({"image": image}, Call("child", 10))["ratio"][0, 0, 0]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert run({"image": image}, call())["ratio"][0, 0, 0] == 1


@BY_EITHER
def test_a_server_that_is_killed_frozen_and_started_again(protocol: str, bundle: Path, repository: Path) -> None:
    image = np.ones((1, 8, 8, 3), np.uint8)
    with (
        tfserving(repository) as server,
        opened(server, protocol, network(bundle, "ratio"), backend_timeout_s=1) as run,
    ):
        assert run.ready()
        server.pause()
        _fails(run, image, ServerTimeout, within_s=2)
        assert not run.ready()
        server.resume()
        assert _recovers(run, image)
        server.stop()
        _fails(run, image, ServerUnreachable, within_s=2)
        assert not run.ready()
        with pytest.raises(ServerUnreachable):
            connect("tfserving", settings(server, protocol)).open(network(bundle, "ratio"))
        server.start()
        assert _recovers(run, image)


def _fails(run: Run, image: npt.NDArray[Any], kind: type[Failure], within_s: float) -> None:
    begin = monotonic()
    with pytest.raises(kind):
        run({"image": image}, Call("test", 10))
    assert monotonic() - begin < within_s


def _recovers(run: Run, image: npt.NDArray[Any]) -> bool:
    ends_at = monotonic() + 5
    while monotonic() < ends_at:
        try:
            run({"image": image}, Call("test", 10))
        except (*SERVER_FAILURES, ServerBusy):
            continue
        return run.ready()
    return False
