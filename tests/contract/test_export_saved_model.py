"""TensorFlow's forms of one network, written and turned into each other, and into ONNX, with the names kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

tf: Any = pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")

pytestmark = [
    pytest.mark.export,
    # TensorFlow's own use of deprecated names is not ours to mend.
    pytest.mark.filterwarnings("default"),
]

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
TIMES = np.array(2, np.int32)
INPUTS = ["times", "x"]
OUTPUTS = ["sum", "least"]


def saved(module: Any, answer: Any, folder: Path) -> Path:
    specs = (tf.TensorSpec((None, 3), tf.float32, "x"), tf.TensorSpec((), tf.int32, "times"))
    function = tf.function(answer, input_signature=specs).get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
    return folder


def trained(folder: Path) -> Path:
    """A SavedModel with variables: x [N, 3], times -> sum = x * times + 1, least = the least of x in each row."""
    module = tf.Module()
    module.one = tf.Variable([1.0, 1.0, 1.0])

    def answer(x: Any, times: Any) -> dict[str, Any]:
        return {"sum": x * tf.cast(times, tf.float32) + module.one, "least": tf.reduce_min(x, axis=1)}

    return saved(module, answer, folder / "trained")


def looping(folder: Path) -> Path:
    """A SavedModel whose one function doubles x as often as `times` says, in a loop."""
    module = tf.Module()

    def answer(x: Any, times: Any) -> dict[str, Any]:
        looped = tf.while_loop(lambda at, _: at < times, lambda at, value: (at + 1, value * 2.0), (0, x))
        return {"sum": looped[1]}

    return saved(module, answer, folder / "looping")


def test_a_saved_model_becomes_a_frozen_graph_with_its_names(tmp_path: Path) -> None:
    from model_server.export.saved_model import freeze, read_frozen, write_frozen

    write_frozen(freeze(trained(tmp_path)), tmp_path / "own.pb")
    graph = read_frozen(tmp_path / "own.pb")
    assert "VarHandleOp" not in {node.op for node in graph.node}
    function = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    tensors = [function.graph.get_tensor_by_name(f"{name}:0") for name in (*INPUTS, *OUTPUTS)]
    total, least = function.prune(tensors[:2], tensors[2:])(tf.constant(TIMES), tf.constant(X))
    assert total.numpy().tolist() == [[3, 5, 7], [9, 11, 13]]
    assert least.numpy().tolist() == [1, 4]


def test_a_frozen_graph_becomes_a_saved_model_of_one_file(tmp_path: Path) -> None:
    from model_server.export.saved_model import freeze, write_saved_model

    path = write_saved_model(freeze(trained(tmp_path)), tmp_path / "own", INPUTS, OUTPUTS, signature="detect")
    assert [file.name for file in path.parent.iterdir()] == ["saved_model.pb"]
    loaded = tf.saved_model.load(str(path.parent))
    found = loaded.signatures["detect"](x=tf.constant(X), times=tf.constant(TIMES))
    assert {name: value.numpy().tolist() for name, value in found.items()} == {
        "sum": [[3, 5, 7], [9, 11, 13]],
        "least": [1, 4],
    }


def test_the_same_network_becomes_the_same_bytes(tmp_path: Path) -> None:
    from model_server.export.saved_model import freeze, write_saved_model

    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    first, second = (
        write_saved_model(freeze(trained(folder)), folder / "own", INPUTS, OUTPUTS).read_bytes() for folder in folders
    )
    assert first == second


def test_a_signature_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    from model_server.export.saved_model import freeze

    with pytest.raises(ValueError, match=r"no signature 'other' in 'trained', only \['serving_default'\]"):
        freeze(trained(tmp_path), "other")


@pytest.mark.parametrize("make", [trained, looping])
def test_onnx_keeps_the_names_and_the_numbers(make: Any, tmp_path: Path) -> None:
    from model_server.export.saved_model import freeze, to_onnx

    folder = make(tmp_path)
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    expected = {name: value.numpy() for name, value in signature(x=tf.constant(X), times=tf.constant(TIMES)).items()}
    model = to_onnx(freeze(folder), INPUTS, list(expected))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(list(expected), {"x": X, "times": TIMES})
    for name, array in zip(expected, found, strict=True):
        np.testing.assert_allclose(array, expected[name])


def test_a_flat_network_becomes_the_same_onnx_every_time(tmp_path: Path) -> None:
    from model_server.export.saved_model import freeze, to_onnx

    graph = freeze(trained(tmp_path))
    first, second = (to_onnx(graph, INPUTS, OUTPUTS) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    onnx.checker.check_model(first, full_check=True)
