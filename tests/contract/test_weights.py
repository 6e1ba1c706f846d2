"""The numbers in TorchScript files, SavedModels and frozen graphs are counted, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_server.comparison.weighing import File
from model_server.comparison.weights import parameters


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("frozen", [False, True])
def test_torchscript_s_parameters_buffers_and_constants_are_counted(tmp_path: Path, frozen: bool) -> None:
    torch: Any = pytest.importorskip("torch")
    table = torch.ones(7)

    class Layers(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 7)
            self.register_buffer("steps", torch.arange(7))

        def forward(self, x: Any) -> Any:
            return self.layer(x) * table + table + self.steps

    module = torch.jit.trace(Layers().eval(), torch.zeros(1, 3))
    module = torch.jit.freeze(module) if frozen else module
    torch.jit.save(module, str(tmp_path / "model.ts"))
    assert parameters("torchscript", [File(str(tmp_path / "model.ts"), "")]) == (3 * 7 + 7 + 7, "")


@pytest.mark.torch
def test_what_is_no_torchscript_says_so(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "model.ts").write_bytes(b"no script")
    assert parameters("torchscript", [File(str(tmp_path / "model.ts"), "")])[0] is None


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["saved model", "frozen"])
def test_tensorflow_s_variables_and_constants_are_counted(tmp_path: Path, kind: str) -> None:
    tf: Any = pytest.importorskip("tensorflow")
    module = tf.Module()
    module.weights = tf.Variable(tf.ones([3, 7]))
    module.unused = tf.Variable(tf.ones([100]))
    table = tf.reshape(tf.range(7.0), [7])

    def times(x: Any) -> Any:
        return {"y": tf.reshape(x @ module.weights + table, [-1, 7]) * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]}

    run = tf.function(times, input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    if kind == "saved model":
        tf.saved_model.save(module, str(tmp_path), signatures=run)
        path = tmp_path / "saved_model.pb"
    else:
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        path = tmp_path / "frozen.pb"
        path.write_bytes(
            convert_variables_to_constants_v2(run.get_concrete_function()).graph.as_graph_def().SerializeToString()
        )
    assert parameters("tensorflow", [File(str(path), "serving_default")]) == (3 * 7 + 7 + 7, "")


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("default")
def test_a_signature_that_is_not_there_is_said(tmp_path: Path) -> None:
    tf: Any = pytest.importorskip("tensorflow")
    tf.saved_model.save(tf.Module(), str(tmp_path))
    count, why = parameters("tensorflow", [File(str(tmp_path / "saved_model.pb"), "other")])
    assert count is None
    assert why.startswith("saved_model.pb: TensorFlow cannot read it")
