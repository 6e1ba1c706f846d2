"""TensorFlow as a Backend: SavedModels and frozen graphs, what it refuses, and the default detector's answer."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from shared.artifacts import sha256_of
from shared.backends import connect
from shared.call import Call
from shared.errors import ConfigurationError, DeadlineExceeded, ModelOutputMismatch, OutOfMemory, WrongAnswer
from shared.manifest import NetworkSpec
from shared.service import Service
from shared.settings import Settings
from shared.tensors import Artifact, DataFile, DType, TensorSpec

tf: Any = pytest.importorskip("tensorflow")

pytestmark = [
    pytest.mark.tensorflow,
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


def saved_model(folder: Path) -> Path:
    """x [N, 3], times -> sum = x * times + 1, whose 1 is a variable, and first = x[0]; a second signature adds 10."""
    module = tf.Module()
    module.one = tf.Variable([1.0, 1.0, 1.0])
    specs = (tf.TensorSpec((None, 3), tf.float32, "x"), tf.TensorSpec((), tf.int32, "times"))

    def answer(x: Any, times: Any) -> dict[str, Any]:
        return {"sum": x * tf.cast(times, tf.float32) + module.one, "first": x[0]}

    def more(x: Any, times: Any) -> dict[str, Any]:
        return {**answer(x, times), "sum": x * tf.cast(times, tf.float32) + module.one + 10.0}

    signatures = {
        "serving_default": tf.function(answer, input_signature=specs).get_concrete_function(),
        "more": tf.function(more, input_signature=specs).get_concrete_function(),
    }
    tf.saved_model.save(module, str(folder / "own"), signatures=signatures)
    return folder / "own" / "saved_model.pb"


def frozen_graph(folder: Path) -> Path:
    """The same network with constants alone, under tensor names such as `x:0`."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 3), name="x")
        times = tf.compat.v1.placeholder(tf.int32, (), name="times")
        tf.add(x * tf.cast(times, tf.float32), 1.0, name="sum")
        tf.identity(x[0], name="first")
    path = folder / "own.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


FORMS = {"saved_model": saved_model, "frozen": frozen_graph}


def network(folder: Path, file: Path, signature: str = "serving_default", **changed: Any) -> NetworkSpec:
    """The network in `file` as model.json would declare it, with all that lies beside it."""
    beside = sorted(file.parent.glob("variables/*"))
    artifact = Artifact(
        file.relative_to(folder).as_posix(),
        sha256_of(file),
        data=tuple(DataFile(path.relative_to(folder).as_posix(), sha256_of(path)) for path in beside),
        signature=signature,
    )
    fields = {"inputs": INPUTS, "outputs": OUTPUTS, "artifacts": {"tensorflow": artifact}} | changed
    return NetworkSpec("own", "1", "detector", folder, served_as="own.detector", **fields)


def answer(spec: NetworkSpec) -> list[float]:
    run = connect("tensorflow", Settings()).open(spec)
    outputs = run({"times": TIMES, "x": X}, call())
    assert list(outputs) == ["sum", "first"]
    assert outputs["first"].tolist() == [1, 2, 3]
    values: list[float] = outputs["sum"].ravel().tolist()
    return values


@pytest.mark.parametrize("form", FORMS)
def test_a_network_answers_by_name(form: str, tmp_path: Path) -> None:
    assert answer(network(tmp_path, FORMS[form](tmp_path))) == [3, 5, 7]


def test_the_signature_that_model_json_names_is_the_one_called(tmp_path: Path) -> None:
    assert answer(network(tmp_path, saved_model(tmp_path), signature="more")) == [13, 15, 17]


def test_a_signature_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    spec = network(tmp_path, saved_model(tmp_path), signature="other")
    message = r"tensorflow\.signature: there is no 'other' in the SavedModel, only \['more', 'serving_default'\]"
    with pytest.raises(ConfigurationError, match=message):
        answer(spec)


def test_tensors_of_a_frozen_graph_may_be_named_in_full(tmp_path: Path) -> None:
    inputs = (TensorSpec("x:0", "float32", (None, 3)), TensorSpec("times", "int32", ()))
    outputs = (TensorSpec("sum:0", "float32", (None, 3)),)
    spec = network(tmp_path, frozen_graph(tmp_path), inputs=inputs, outputs=outputs)
    run = connect("tensorflow", Settings()).open(spec)
    assert run({"x:0": X, "times": TIMES}, call())["sum:0"].tolist() == [[3, 5, 7]]


@pytest.mark.parametrize("form", FORMS)
def test_many_threads_may_ask_at_once(form: str, tmp_path: Path) -> None:
    run = connect("tensorflow", Settings()).open(network(tmp_path, FORMS[form](tmp_path)))

    def ask(value: int) -> float:
        return float(run({"x": np.full((1, 3), value, np.float32), "times": TIMES}, call())["sum"][0, 0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(200))) == [2 * value + 1 for value in range(200)]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown input": (
        {"inputs": (*INPUTS, TensorSpec("y", "float32", ()))},
        r"inputs: there is no 'y' in the graph, only \['times', 'x'\]",
    ),
    "a missing input": ({"inputs": INPUTS[:1]}, r"inputs: also needed in the graph, but not declared .*\['times'\]"),
    "an unknown output": (
        {"outputs": (TensorSpec("boxes", "float32", (None, 3)),)},
        r"outputs: there is no 'boxes' in the graph, only \['first', 'sum'\]",
    ),
    "a dtype": (
        {"inputs": (TensorSpec("x", "uint8", (None, 3)), INPUTS[1])},
        "inputs: 'x': expected dtype float32 as in the graph, found uint8 in model.json",
    ),
    "a fixed axis": (
        {"inputs": (TensorSpec("x", "float32", (None, 4)), INPUTS[1])},
        r"inputs: 'x': expected shape \[None, 3\] as in the graph, found \[None, 4\]",
    ),
    "the number of axes": (
        {"inputs": (TensorSpec("x", "float32", (1, 3, 1)), INPUTS[1])},
        "inputs: 'x': expected shape",
    ),
    "an output's shape": ({"outputs": (TensorSpec("first", "float32", (4,)),)}, r"outputs: 'first': expected shape"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", WRONG)
def test_what_the_graph_does_not_have_is_named(case: str, form: str, tmp_path: Path) -> None:
    changed, message = WRONG[case]
    with pytest.raises(ConfigurationError, match=rf"^own: networks\.detector\.{message}"):
        connect("tensorflow", Settings()).open(network(tmp_path, FORMS[form](tmp_path), **changed))


def test_an_input_that_no_declared_output_needs_may_stay_undeclared_in_a_frozen_graph(tmp_path: Path) -> None:
    spec = network(tmp_path, frozen_graph(tmp_path), inputs=INPUTS[:1], outputs=OUTPUTS[1:])
    assert connect("tensorflow", Settings()).open(spec)({"x": X}, call())["first"].tolist() == [1, 2, 3]


def test_an_output_of_another_shape_than_declared_is_told_at_the_call(tmp_path: Path) -> None:
    outputs = (TensorSpec("sum", "float32", (2, 3)),)  # the graph leaves that axis free
    run = connect("tensorflow", Settings()).open(network(tmp_path, frozen_graph(tmp_path), outputs=outputs))
    with pytest.raises(ModelOutputMismatch, match=r"'sum': model.json declares .* \[2, 3\], found float32 \[1, 3\]"):
        run({"x": X, "times": TIMES}, call())


DAMAGE = {"empty": b"", "garbage": b"garbage" * 100, "zeros": bytes(500)}


@pytest.mark.parametrize("file", ["own/saved_model.pb", "own.pb"])
@pytest.mark.parametrize("damage", [*DAMAGE, "half"])
def test_a_file_that_is_no_graph_is_said_to_be_none(damage: str, file: str, tmp_path: Path) -> None:
    path = (saved_model if "/" in file else frozen_graph)(tmp_path)
    data = path.read_bytes()
    path.write_bytes(DAMAGE.get(damage, data[: len(data) // 2]))
    with pytest.raises(ConfigurationError, match=r"own: networks\.detector") as raised:
        connect("tensorflow", Settings()).open(network(tmp_path, path))
    assert str(tmp_path) not in str(raised.value)


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    file = saved_model(tmp_path)
    spec = network(tmp_path, file)
    (file.parent / "variables" / "variables.index").unlink()
    with pytest.raises(ConfigurationError, match=r"cannot read 'own/variables/variables.index'"):
        answer(spec)


def test_weights_that_nobody_declared_and_are_missing_cannot_be_opened(tmp_path: Path) -> None:
    file = saved_model(tmp_path)
    shutil.rmtree(file.parent / "variables")
    with pytest.raises(ConfigurationError, match=r"TensorFlow .* cannot open 'saved_model.pb'") as raised:
        answer(network(tmp_path, file))
    assert str(tmp_path) not in str(raised.value)


def test_weights_beside_the_graph_are_checked(tmp_path: Path) -> None:
    file = saved_model(tmp_path)
    spec = network(tmp_path, file)
    data = file.parent / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    with pytest.raises(ConfigurationError, match=r"'own/variables/variables.data-00000-of-00001' has"):
        answer(spec)


def test_weights_beside_the_graph_have_to_be_declared(tmp_path: Path) -> None:
    file = saved_model(tmp_path)
    artifact = Artifact("own/saved_model.pb", sha256_of(file))
    with pytest.raises(ConfigurationError, match=r"data: the SavedModel has 'own/variables/variables.data.*beside it"):
        answer(network(tmp_path, file, artifacts={"tensorflow": artifact}))


def test_weights_that_are_whole_by_their_checksum_and_broken_inside_cannot_be_opened(tmp_path: Path) -> None:
    file = saved_model(tmp_path)
    (file.parent / "variables" / "variables.index").write_bytes(b"garbage" * 20)
    with pytest.raises(ConfigurationError, match=r"TensorFlow .* cannot open 'saved_model.pb'") as raised:
        answer(network(tmp_path, file))
    assert str(tmp_path) not in str(raised.value)


BAD: dict[str, Any] = {"another dtype": np.zeros((1, 3), np.int64), "no row to take": np.zeros((0, 3), np.float32)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", BAD)
def test_a_graph_that_fails_is_a_wrong_answer_without_its_words(case: str, form: str, tmp_path: Path) -> None:
    run = connect("tensorflow", Settings()).open(network(tmp_path, FORMS[form](tmp_path)))
    with pytest.raises(WrongAnswer) as raised:
        run({"x": BAD[case], "times": TIMES}, call())
    assert raised.value.message == "the model failed on this picture; the log tells more under the request id"


def test_a_tensor_too_large_for_the_memory_is_out_of_memory(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        side = tf.compat.v1.placeholder(tf.int32, (), name="side")
        tf.reduce_sum(tf.fill(tf.fill([5], side), 1.0), name="sum")
    path = tmp_path / "own.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    spec = network(
        tmp_path,
        path,
        inputs=(TensorSpec("side", "int32", ()),),
        outputs=(TensorSpec("sum", "float32", ()),),
    )
    run = connect("tensorflow", Settings()).open(spec)
    assert run({"side": np.array(2, np.int32)}, call())["sum"] == 32
    with pytest.raises(OutOfMemory):
        run({"side": np.array(4000, np.int32)}, call())


def test_a_call_whose_time_is_over_is_not_run(tmp_path: Path) -> None:
    run = connect("tensorflow", Settings()).open(network(tmp_path, frozen_graph(tmp_path)))
    with pytest.raises(DeadlineExceeded):
        run({"x": X, "times": TIMES}, Call("test", -1))


def test_a_network_is_ready_until_it_is_closed(tmp_path: Path) -> None:
    run = connect("tensorflow", Settings()).open(network(tmp_path, frozen_graph(tmp_path)))
    assert run.ready()
    run.close()
    assert not run.ready()


def test_every_dtype_goes_in_and_comes_out(tmp_path: Path) -> None:
    dtypes: tuple[DType, ...] = get_args(DType)
    with tf.Graph().as_default() as graph:
        for name in dtypes:
            tf.identity(tf.compat.v1.placeholder(name, (None, 2), name=f"in_{name}"), name=name)
    path = tmp_path / "own.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    inputs = tuple(TensorSpec(f"in_{name}", name, (None, 2)) for name in dtypes)
    outputs = tuple(TensorSpec(name, name, (None, 2)) for name in dtypes)
    run = connect("tensorflow", Settings()).open(network(tmp_path, path, inputs=inputs, outputs=outputs))
    found = run({f"in_{name}": np.ones((3, 2), name) for name in dtypes}, call())
    assert {name: (array.dtype.name, array.sum()) for name, array in found.items()} == {
        name: (name, 6) for name in dtypes
    }


def test_a_second_backend_with_other_threads_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = network(tmp_path, frozen_graph(tmp_path))
    for threads in (1, 2):
        run = connect("tensorflow", Settings(threads=threads)).open(spec)
        assert run({"x": X, "times": TIMES}, call())["sum"].tolist() == [[3, 5, 7]]
    assert "cannot change to 2" in caplog.text


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_said(device: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^THINLENS_DEVICE: '{device}' cannot be used: .* finds 0 CUDA"):
        connect("tensorflow", Settings(device=device))


def frozen_bundle(folder: Path) -> None:
    """The default detector with its SavedModel's graph as a frozen one."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((SHIPPED / "saved_model" / "saved_model.pb").read_bytes())
    frozen = folder / "frozen.pb"
    frozen.write_bytes(saved.meta_graphs[0].graph_def.SerializeToString())
    manifest = json.loads((SHIPPED / "model.json").read_text(encoding="utf-8"))
    artifacts = {"tensorflow": {"file": "frozen.pb", "sha256": sha256_of(frozen)}}
    manifest["networks"]["detector"]["artifacts"] = artifacts
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")


def detections(service: Service, picture: bytes) -> list[Any]:
    return list(service.predict(service.find(None), picture, {"score_threshold": 0.3}, call()).prediction.predictions)


@pytest.mark.parametrize("form", FORMS)
def test_the_default_detector_answers_as_under_onnx_runtime(form: str, photos: dict[str, Path], tmp_path: Path) -> None:
    frozen_bundle(tmp_path)
    folder = SHIPPED if form == "saved_model" else tmp_path
    ours = Service(Settings(backend="tensorflow", models=str(folder)))
    other = Service(Settings(backend="onnx", models=str(SHIPPED)))
    for name, path in photos.items():
        found, expected = detections(ours, path.read_bytes()), detections(other, path.read_bytes())
        assert [item.label for item in found] == [item.label for item in expected], name
        np.testing.assert_allclose([item.score for item in found], [item.score for item in expected], atol=1e-3)
        np.testing.assert_allclose([item.box for item in found], [item.box for item in expected], atol=0.5)


def test_a_loop_of_the_first_tensorflow_runs(tmp_path: Path) -> None:
    """Detection graphs of TensorFlow 1 prepare their pictures in a while loop of Enter, Switch and Exit nodes."""
    with tf.Graph().as_default() as graph:
        tf.compat.v1.disable_control_flow_v2()
        x = tf.compat.v1.placeholder(tf.float32, (None, 3), name="x")
        tf.identity(tf.compat.v1.map_fn(lambda row: row * 2.0, x), name="sum")
        tf.compat.v1.enable_control_flow_v2()
    definition = graph.as_graph_def()
    assert "Enter" in {node.op for node in definition.node}
    path = tmp_path / "own.pb"
    path.write_bytes(definition.SerializeToString())
    run = connect("tensorflow", Settings()).open(network(tmp_path, path, inputs=INPUTS[:1], outputs=OUTPUTS[:1]))
    assert run({"x": np.ones((2, 3), np.float32)}, call())["sum"].tolist() == [[2, 2, 2], [2, 2, 2]]
