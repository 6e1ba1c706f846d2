"""Halves a GraphDef's file as `compact` does an ONNX file's: kernels in float16, cast in the graph to float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_WITH_KERNEL = (*_CONVOLUTIONS, "MatMul")
_KERNEL = 1
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def store_weights_as_float16(graph: Any) -> Any:
    """A copy of the GraphDef whose kernels are float16 constants, each behind one Cast to float32.

    Biases, anchors and shapes stay as they are. TensorFlow folds the casts on the first call.
    """
    kernels = {node.input[_KERNEL] for node in graph.node if node.op in _WITH_KERNEL}
    compact = tf.compat.v1.GraphDef(versions=graph.versions)
    for node in graph.node:
        stored = _stored(node) if node.name in kernels and _fits(node) else [node]
        compact.node.extend(stored)
    return compact


def fold_batch_norms(graph: Any, *, but: str) -> Any:
    """A copy of the GraphDef in which every FusedBatchNorm right behind a convolution is part of its kernel and a
    BiasAdd; those whose name begins with `but` stay.

    kernel' = kernel * scale / sqrt(variance + epsilon), bias = offset - mean * scale / sqrt(variance + epsilon), in the
    order of tf2onnx's optimizer/back_to_back_optimizer.py, so that both give the same float32.
    """
    folded = tf.compat.v1.GraphDef()
    folded.CopyFrom(graph)
    nodes = {node.name: node for node in folded.node}
    for node in folded.node:
        if node.op == "FusedBatchNorm" and not node.name.startswith(but) and nodes[node.input[0]].op in _CONVOLUTIONS:
            _fold(node, nodes)
    return folded


def _fold(norm: Any, nodes: dict[str, Any]) -> None:
    convolution = nodes[norm.input[0]]
    kernel = nodes[convolution.input[_KERNEL]]
    scale, offset, mean, variance = (_value(nodes[name]) for name in norm.input[1:])
    factor = scale / np.sqrt(variance + norm.attr["epsilon"].f)
    weights = _value(kernel)
    by_channel = weights.shape[2:] if convolution.op == "DepthwiseConv2dNative" else (1, -1)
    _set_value(kernel, weights * factor.reshape(by_channel))
    bias = nodes[norm.input[2]]
    _set_value(bias, (0 - mean) * factor + offset)
    data_format = norm.attr["data_format"]
    folded = tf.compat.v1.NodeDef(name=norm.name, op="BiasAdd", input=[convolution.name, bias.name])
    folded.attr["T"].CopyFrom(norm.attr["T"])
    folded.attr["data_format"].CopyFrom(data_format)
    norm.CopyFrom(folded)


def _fits(node: Any) -> bool:
    return (
        node.op == "Const"
        and node.attr["dtype"].type == tf.float32.as_datatype_enum
        and bool(np.abs(_value(node)).max(initial=0.0) <= _FLOAT16_MAX)
    )


def _stored(node: Any) -> list[Any]:
    """The rounded constant, and the node that casts it back under its old name."""
    halved = tf.compat.v1.NodeDef(name=f"{node.name}_float16", op="Const")
    halved.attr["dtype"].type = tf.float16.as_datatype_enum
    _set_value(halved, _value(node).astype(np.float16))
    cast = tf.compat.v1.NodeDef(name=node.name, op="Cast", input=[halved.name])
    cast.attr["SrcT"].type = tf.float16.as_datatype_enum
    cast.attr["DstT"].type = tf.float32.as_datatype_enum
    return [halved, cast]


def _value(node: Any) -> Any:
    return tf.make_ndarray(node.attr["value"].tensor)


def _set_value(node: Any, value: Any) -> None:
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
