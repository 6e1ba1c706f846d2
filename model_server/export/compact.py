"""Halves a model's file: weights are stored as float16 and cast in the graph, which still computes in float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_WEIGHT_INPUT = {"Conv": 1, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def store_weights_as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` whose kernels are float16 initialisers, each behind one Cast to float32.

    Only the kernels of convolutions and matrix products are stored so: biases, anchors and shapes weigh nothing, and
    rounding them would move boxes. ONNX Runtime folds the casts when it loads the file.
    """
    compact = onnx.ModelProto()
    compact.CopyFrom(model)
    kernels = {node.input[at] for node in model.graph.node if (at := _WEIGHT_INPUT.get(node.op_type)) is not None}
    casts = [_store(tensor) for tensor in compact.graph.initializer if tensor.name in kernels and _fits(tensor)]
    nodes = [*casts, *compact.graph.node]
    del compact.graph.node[:]
    compact.graph.node.extend(nodes)
    return compact


def _fits(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return False
    return bool(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0) <= _FLOAT16_MAX)


def _store(tensor: onnx.TensorProto) -> onnx.NodeProto:
    """Rounds `tensor` in place and gives the node that casts it back under its old name."""
    name = tensor.name
    halved = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}.float16")
    tensor.CopyFrom(halved)
    return helper.make_node("Cast", [halved.name], [name], to=onnx.TensorProto.FLOAT)
