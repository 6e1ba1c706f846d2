"""ONNX graphs as PyTorch modules: each operator as ONNX Runtime computes it, and the default detector's file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from shared.artifacts import sha256_of
from shared.backends import connect
from shared.call import Call
from shared.manifest import read_bundle
from shared.settings import Settings

torch: Any = pytest.importorskip("torch")
ort: Any = pytest.importorskip("onnxruntime")

from model_server.export.onnx_torch import OnnxModule, read, torchscript  # noqa: E402  # needs PyTorch

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "model_server" / "models" / "coco-ssd-mobilenet-v2"
X = np.random.default_rng(7).normal(size=(1, 4, 6, 6)).astype(np.float32)
KERNEL = np.random.default_rng(8).normal(size=(4, 2, 3, 3)).astype(np.float32)
FOUR = np.array([0.5, 1, 1.5, 2], np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def graph(kind: str, given: Sequence[Any], outputs: int = 1, opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    """x, and `given` as constants (None is an input left out), through one node."""
    names = ["" if value is None else f"c{at}" for at, value in enumerate(given)]
    stored = [
        numpy_helper.from_array(value, name) for name, value in zip(names, given, strict=True) if value is not None
    ]
    results = [f"y{at}" for at in range(outputs)]
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(kind, ["x", *names], results, **attributes)],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(X.shape))],
            [onnx.ValueInfoProto(name=result) for result in results],
            stored,
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )


CASES: dict[str, onnx.ModelProto] = {
    "Add": graph("Add", [X]),
    "BatchNormalization": graph("BatchNormalization", [FOUR, FOUR, FOUR, FOUR], epsilon=0.01),
    "Cast": graph("Cast", [], to=TensorProto.INT32),
    "Clip": graph("Clip", [np.float32(-0.5), np.float32(0.5)]),
    "Clip, above only": graph("Clip", [None, np.float32(0.5)]),
    "Concat": graph("Concat", [X, X], axis=-1),
    "Conv": graph("Conv", [KERNEL, FOUR], group=2, pads=[1, 1, 1, 1], strides=[2, 1], dilations=[1, 2]),
    "Conv, uneven pads": graph("Conv", [KERNEL], group=2, pads=[0, 2, 1, 0]),
    "Exp": graph("Exp", []),
    "Mul by a number": graph("Mul", [np.float32(0.25)]),
    "Reshape": graph("Reshape", [ints(0, -1, 9)]),
    "Sigmoid": graph("Sigmoid", []),
    "Slice": graph("Slice", [ints(1, -4), ints(3, 2**62), ints(1, 3), ints(1, 2)]),
    "Slice, all axes": graph("Slice", [ints(0, 1, 0, 2), ints(1, 9, 9, -1)]),
    "Split": graph("Split", [], outputs=2, axis=1),
    "Split, sizes": graph("Split", [ints(1, 5)], outputs=2, axis=3),
    "Squeeze": graph("Squeeze", [ints(0)]),
    "Squeeze, all": graph("Squeeze", []),
    "Sub": graph("Sub", [X[:, :, :1]]),
    "Sum": graph("Sum", [X, X]),
    "Transpose": graph("Transpose", [], perm=[0, 2, 3, 1]),
    "Transpose, all": graph("Transpose", []),
    "Unsqueeze": graph("Unsqueeze", [ints(-1, 0)]),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operator_computes_what_onnx_runtime_computes(case: str) -> None:
    expected = ort.InferenceSession(CASES[case].SerializeToString()).run(None, {"x": X})
    with torch.inference_mode():
        found = OnnxModule(CASES[case]).eval()(torch.from_numpy(X))
    for want, got in zip(expected, found if isinstance(found, tuple) else (found,), strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)
        assert got.numpy().dtype == want.dtype


REFUSED = {
    "an operator": (graph("Gelu", [], opset=20), "cannot be converted to PyTorch: Gelu"),
    "several operators": (graph("TopK", [ints(1)], outputs=2), "cannot be converted to PyTorch: TopK"),
    "an old opset": (graph("Exp", [], opset=11), "expected opset 13 or later, found 11"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_named(case: str) -> None:
    model, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        OnnxModule(model)


def test_a_shape_that_is_computed_is_refused() -> None:
    model = graph("Reshape", [])
    model.graph.node[0].input.append("x")
    with pytest.raises(ValueError, match=r"Reshape: input 'x' has to be a constant"):
        OnnxModule(model)


def test_weights_stay_as_they_are_stored() -> None:
    original = {tensor.name: tensor for tensor in onnx.load(SHIPPED / "model.onnx").graph.initializer}
    kept = dict(read(SHIPPED / "model.onnx").named_buffers())
    halves = [name for name, tensor in original.items() if tensor.data_type == TensorProto.FLOAT16]
    assert len(halves) > 80
    for name in halves:
        stored = kept[name.replace(".", "_")].numpy()
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored, numpy_helper.to_array(original[name]))


def test_the_file_tells_nothing_of_the_machine_that_made_it() -> None:
    data = torchscript(OnnxModule(CASES["Conv"]), [torch.from_numpy(X)])
    assert str(ROOT).encode() not in data
    assert b".debug_pkl" not in data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with model.ts made anew, by a process of its own as a command is."""
    folder = tmp_path_factory.mktemp("made") / SHIPPED.name
    folder.mkdir()
    for name in ("model.onnx", "model.json"):
        shutil.copy(SHIPPED / name, folder / name)
    code = f"import pathlib, model_server.export.coco_ssd_torch as own; own.export(pathlib.Path({str(folder)!r}))"
    environ = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # four spinning threads do nothing else on a busy machine
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, env=environ, check=True, timeout=300)
    return folder


def test_the_export_enters_the_file_in_model_json(made: Path) -> None:
    artifacts = json.loads((made / "model.json").read_text())["networks"]["detector"]["artifacts"]
    assert artifacts["torchscript"]["sha256"] == sha256_of(made / "model.ts")


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the shipped file was made by PyTorch 2.13")
@pytest.mark.parametrize("name", ["model.ts", "model.json"])
def test_the_export_makes_the_shipped_files_byte_for_byte(name: str, made: Path) -> None:
    assert sha256_of(made / name) == sha256_of(SHIPPED / name)


def test_the_shipped_file_is_small() -> None:
    assert (SHIPPED / "model.ts").stat().st_size < 10_000_000


@pytest.mark.parametrize("name", ["street", "astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize("folder", ["made", "shipped"])
def test_the_script_gives_the_numbers_of_the_graph(name: str, folder: str, made: Path, photos: dict[str, Path]) -> None:
    network = read_bundle(made if folder == "made" else SHIPPED).network("detector")
    with Image.open(photos[name]) as picture:
        image = np.asarray(picture.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR))[None]
    expected, found = (
        connect(backend, Settings(threads=1)).open(network)({"image": image}, Call("test", 60))
        for backend in ("onnx", "torchscript")
    )
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=0, atol=1e-4)
