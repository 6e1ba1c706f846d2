"""Bundles whose networks take a picture of 640 x 640 and cost next to nothing, so that what is around them shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.bundles import Output, manifest
from tests.graphs import Graph

SIDE = 640
_ROWS, _FOUND = 100, 6
_LABELS = ("person", "car", "dog")
_STRIDE, _WIDTH, _LAYERS = 8, 256, 4


def write_constant(folder: Path) -> Path:
    """A detector that finds the same six things in every picture: what it costs is not the model's work."""
    graph, random = Graph(), np.random.default_rng(0)
    corner = graph.op("Slice", "image", graph.whole([0, 0, 0]), graph.whole([1, 1, 1]), graph.whole([1, 2, 3]))
    nothing = graph.op("Mul", graph.op("Cast", corner, to=TensorProto.FLOAT), 0.0)  # [1, 1, 1, 1]
    flat = graph.op("Squeeze", nothing, graph.whole([3]))
    corners = random.uniform(0, 0.5, (1, _ROWS, 2))
    scores = random.uniform(0, 0.01, (1, _ROWS, len(_LABELS)))
    scores[0, :_FOUND, 0] = np.linspace(0.95, 0.7, _FOUND)
    graph.op("Add", flat, np.concatenate([corners, corners + 0.1], 2), name="boxes")
    graph.op("Add", flat, scores, name="scores")
    outputs: list[Output] = [("boxes", [1, _ROWS, 4]), ("scores", [1, _ROWS, len(_LABELS)])]
    return _written(folder, "tf-detection", graph, 1, outputs)


def write_batched(folder: Path) -> Path:
    """A network with a free batch axis that reads as many weights for eight pictures as for one."""
    graph, random = Graph(), np.random.default_rng(0)
    steps = [graph.whole(values) for values in ([0, 0], [SIDE, SIDE], [1, 2], [_STRIDE, _STRIDE])]
    taken = graph.op("Cast", graph.op("Slice", "image", *steps), to=TensorProto.FLOAT)
    rows, length = graph.op("Flatten", taken, axis=1), (SIDE // _STRIDE) ** 2 * 3
    for _ in range(_LAYERS):
        weights = random.normal(scale=length**-0.5, size=(length, _WIDTH)).astype(np.float32)
        rows, length = graph.op("Relu", graph.op("MatMul", rows, weights)), _WIDTH
    graph.op("Identity", rows, name="features")
    return _written(folder, "yolo", graph, None, [("features", [None, _WIDTH])])


def _written(folder: Path, family: str, graph: Graph, axis: int | None, outputs: Sequence[Output]) -> Path:
    shape = [axis, SIDE, SIDE, 3]
    made = helper.make_graph(
        graph.nodes,
        folder.name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name, axes, *_ in outputs],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    declared = manifest(
        family,
        outputs,
        _LABELS,
        input_shape=shape,
        dtype="uint8",
        preprocess={"size": [SIDE, SIDE], "layout": "NHWC"},
        postprocess={"first_class_id": 1} if family == "tf-detection" else {},
        sha256=hashlib.sha256(data).hexdigest(),
    )
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(json.dumps(declared | {"name": folder.name}), encoding="utf-8")
    return folder
