"""LiteRT as a Backend, and the converter that makes its files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from shared.artifacts import sha256_of
from shared.backends import connect
from shared.call import Call
from shared.errors import ConfigurationError, DeadlineExceeded, WrongAnswer
from shared.manifest import NetworkSpec, read_bundle
from shared.settings import Settings
from shared.tensors import Artifact, TensorSpec

tf: Any = pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")
pytest.importorskip("tf2onnx")

pytestmark = [
    pytest.mark.export,
    # TensorFlow's own use of deprecated names is not ours to mend.
    pytest.mark.filterwarnings("default"),
]


def call() -> Call:
    """A request's time begins when it is made: not when this file is read."""
    return Call("test", 60)


SHIPPED = Path(__file__).parents[2] / "model_server" / "models" / "coco-ssd-mobilenet-v2"
INPUTS = (TensorSpec("x", "float32", (None, 3)), TensorSpec("times", "int32", ()))
OUTPUTS = (TensorSpec("sum", "float32", (None, 3)), TensorSpec("first", "float32", (3,)))
X = np.array([[1, 2, 3]], np.float32)
TIMES = np.array(2, np.int32)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x [N, 3], times -> sum = x * times + 1, and first = x[0]."""
    from model_server.export.litert import write_litert

    folder = tmp_path_factory.mktemp("litert")
    module = tf.Module()

    def answer(x: Any, times: Any) -> dict[str, Any]:
        return {"sum": x * tf.cast(times, tf.float32) + 1.0, "first": x[0]}

    specs = (tf.TensorSpec((None, 3), tf.float32, "x"), tf.TensorSpec((), tf.int32, "times"))
    function = tf.function(answer, input_signature=specs).get_concrete_function()
    tf.saved_model.save(module, str(folder / "saved"), signatures={"serving_default": function})
    write_litert(folder / "saved", folder / "own.tflite")
    return folder / "own.tflite"


def network(folder: Path, data: bytes, signature: str = "serving_default", **changed: Any) -> NetworkSpec:
    path = folder / "own.tflite"
    path.write_bytes(data)
    artifact = Artifact(path.name, sha256_of(path), signature=signature)
    fields = {"inputs": INPUTS, "outputs": OUTPUTS, "artifacts": {"litert": artifact}} | changed
    return NetworkSpec("own", "1", "detector", folder, served_as="own.detector", **fields)


def backend(**settings: Any) -> Any:
    from shared.backends.litert import LitertBackend

    return LitertBackend(Settings(**settings))


def test_a_network_answers_by_name(file: Path, tmp_path: Path) -> None:
    outputs = backend().open(network(tmp_path, file.read_bytes()))({"times": TIMES, "x": X}, call())
    assert {name: array.tolist() for name, array in outputs.items()} == {"sum": [[3, 5, 7]], "first": [1, 2, 3]}


def test_a_free_axis_may_change_from_call_to_call(file: Path, tmp_path: Path) -> None:
    run = backend().open(network(tmp_path, file.read_bytes()))
    for rows in (1, 5, 2):
        assert run({"x": np.ones((rows, 3), np.float32), "times": TIMES}, call())["sum"].shape == (rows, 3)


def test_many_threads_may_ask_at_once(file: Path, tmp_path: Path) -> None:
    run = backend(threads=1).open(network(tmp_path, file.read_bytes()))

    def ask(value: int) -> float:
        return float(run({"x": np.full((1, 3), value, np.float32), "times": TIMES}, call())["sum"][0, 0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(200))) == [2 * value + 1 for value in range(200)]


def test_a_call_that_failed_leaves_the_next_one_whole(file: Path, tmp_path: Path) -> None:
    run = backend(threads=1).open(network(tmp_path, file.read_bytes()))
    for _ in range(10):
        with pytest.raises(WrongAnswer, match=r"^the model failed on this picture; the log tells more"):
            run({"x": X.astype(np.int64), "times": TIMES}, call())
        assert run({"x": X, "times": TIMES}, call())["sum"].tolist() == [[3, 5, 7]]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown output": (
        {"outputs": (TensorSpec("boxes", "float32", (None, 3)),)},
        r"outputs: there is no 'boxes' in the graph, only \['first', 'sum'\]",
    ),
    "a missing input": ({"inputs": INPUTS[:1]}, r"inputs: also needed in the graph, but not declared .*\['times'\]"),
    "a dtype": (
        {"inputs": (TensorSpec("x", "uint8", (None, 3)), INPUTS[1])},
        "inputs: 'x': expected dtype float32 as in the graph, found uint8",
    ),
    "a shape": ({"inputs": (TensorSpec("x", "float32", (None, 4)), INPUTS[1])}, "inputs: 'x': expected shape"),
    "a signature": ({"signature": "other"}, r"signature: there is no 'other' in the file, only \['serving_default'\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_file_does_not_have_is_named(case: str, file: Path, tmp_path: Path) -> None:
    changed, message = WRONG[case]
    with pytest.raises(ConfigurationError, match=rf"^own: networks\.detector\..*{message}"):
        backend().open(network(tmp_path, file.read_bytes(), **changed))


@pytest.mark.parametrize("damage", ["empty", "garbage", "half"])
def test_a_file_that_is_no_model_is_said_to_be_none(damage: str, file: Path, tmp_path: Path) -> None:
    data = {"empty": b"", "garbage": b"garbage" * 100, "half": file.read_bytes()[: file.stat().st_size // 2]}[damage]
    with pytest.raises(ConfigurationError, match=r"LiteRT cannot open 'own.tflite'") as raised:
        backend().open(network(tmp_path, data))
    assert str(tmp_path) not in str(raised.value)


def test_a_call_whose_time_is_over_is_not_run(file: Path, tmp_path: Path) -> None:
    run = backend().open(network(tmp_path, file.read_bytes()))
    with pytest.raises(DeadlineExceeded):
        run({"x": X, "times": TIMES}, Call("test", -1))


def test_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^THINLENS_DEVICE: 'cuda' cannot be used: LiteRT"):
        backend(device="cuda")


def test_the_default_detector_gives_the_numbers_of_onnx_runtime(photos: dict[str, Path], tmp_path: Path) -> None:
    from model_server.export.litert import write_litert

    path = tmp_path / "detector.tflite"
    write_litert(SHIPPED / "saved_model", path)
    shipped = read_bundle(SHIPPED).network("detector")
    artifacts = {"litert": Artifact(path.name, sha256_of(path))}
    run = backend().open(msgspec.structs.replace(shipped, folder=tmp_path, artifacts=artifacts))
    other = connect("onnx", Settings()).open(shipped)
    for photo in photos.values():
        with Image.open(photo) as picture:
            image = np.asarray(picture.convert("RGB").resize((300, 300)))[None]
        found, expected = run({"image": image}, call()), other({"image": image}, call())
        for name in ("boxes", "scores"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4, rtol=0)
