"""Exports that want more than the picture: the boxes have to come back in the picture's own pixels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shared.call import Call
from shared.errors import ConfigurationError
from shared.service import Service
from shared.settings import Settings
from shared.tasks.companions import companions, told_apart
from shared.tensors import TensorSpec
from tests.clients import picture

IMAGE = TensorSpec("images", "float32", (1, 3, 64, 64))
SIZE = TensorSpec("orig_target_sizes", "int64", (None, 2))
MASK = TensorSpec("pixel_mask", "int64", (None, 64, 64))


def _graph() -> bytes:
    """One thing of label 1 in the left upper quarter of the size that is given, its score the least of the mask."""
    half = numpy_helper.from_array(np.array([[[0, 0, 0.5, 0.5]]], np.float32), "half")
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["wh"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["wh", "wh"], ["whwh"], axis=1),
        helper.make_node("Mul", ["half", "whwh"], ["boxes"]),
        helper.make_node("Cast", ["pixel_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", ["mask"], ["least"], keepdims=0),
        helper.make_node("ReduceMin", ["images"], ["dark"], keepdims=0),
        helper.make_node("Mul", ["dark", "none"], ["zero"]),
        helper.make_node("Add", ["least", "zero"], ["sum"]),
        helper.make_node("Reshape", ["sum", "one_one"], ["scores"]),
    ]
    constants = [
        half,
        numpy_helper.from_array(np.array(0, np.float32), "none"),
        numpy_helper.from_array(np.array([1, 1], np.int64), "one_one"),
        numpy_helper.from_array(np.array([[1]], np.int64), "labels"),
    ]
    graph = helper.make_graph(
        nodes,
        "deploy",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64]),
            helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, ["n", 2]),
            helper.make_tensor_value_info("pixel_mask", TensorProto.INT64, ["n", 64, 64]),
        ],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 1]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_size_and_mask_are_given_and_boxes_come_in_source_pixels(tmp_path: Path) -> None:
    data = _graph()
    (tmp_path / "model.onnx").write_bytes(data)
    outputs = [
        {"name": "boxes", "dtype": "float32", "shape": [1, 1, 4]},
        {"name": "scores", "dtype": "float32", "shape": [1, 1]},
        {"name": "labels", "dtype": "int64", "shape": [1, 1]},
    ]
    inputs = [{"name": spec.name, "dtype": spec.dtype, "shape": spec.shape} for spec in (IMAGE, SIZE, MASK)]
    artifact = {"file": "model.onnx", "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {
        "name": "deploy",
        "task": "detection",
        "family": "torchvision-detection",
        "labels": ["nothing", "cat"],
        "licence": "Apache-2.0",
        "source": "made here",
        "networks": {"detector": {"inputs": inputs, "outputs": outputs, "artifacts": {"onnx": artifact}}},
    }
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    service = Service(Settings(models=str(tmp_path)))
    served = service.find(None)
    answer = service.predict(served, picture(hw=(100, 300)), {}, Call("test", 10))
    (found,) = answer.prediction.predictions
    assert (found.label, found.score, found.box) == ("cat", 1.0, (0.0, 0.0, 150.0, 50.0))


def test_a_free_mask_is_as_large_as_the_tensor() -> None:
    mask = TensorSpec("pixel_mask", "bool", (None, None, None))
    assert companions({"mask": mask}, (32, 64))["pixel_mask"].shape == (1, 32, 64)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([IMAGE, TensorSpec("other", "float32", (1, 3))], "expected one picture"),
        ([SIZE], "expected one picture"),
        ([IMAGE, TensorSpec("x", "int64", (1, 2), "depth")], "role: expected 'image', 'size' or 'mask', found 'depth'"),
        ([IMAGE, TensorSpec("x", "int64", (1, 3), "size")], r"'x': expected shape \[1, 2\], found \[1, 3\]"),
        ([IMAGE, TensorSpec("x", "int64", (1, 2), "mask")], r"'x': expected shape \[1, H, W\], found \[1, 2\]"),
    ],
)
def test_inputs_that_cannot_be_told_apart_are_refused(inputs: list[TensorSpec], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        told_apart(inputs, "inputs")
