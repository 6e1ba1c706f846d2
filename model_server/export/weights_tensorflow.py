"""The numbers that a SavedModel or a frozen GraphDef holds."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from model_server.comparison.weighing import File
from model_server.failures import Stopped
from shared.artifacts import SAVED_MODEL

_NARROW = (tf.int8, tf.uint8, tf.qint8, tf.quint8, tf.qint32)
_ERRORS = (tf.errors.OpError, DecodeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def count(file: File) -> int:
    """Elements of the variables and constants that the signature, or the frozen graph, uses. Raises Stopped."""
    path = Path(file.path)
    try:
        if path.name == SAVED_MODEL:
            loaded = tf.saved_model.load(str(path.parent))  # its variables end with it
            return _of_signature(loaded.signatures[file.signature])
        graph = tf.compat.v1.GraphDef()
        graph.ParseFromString(path.read_bytes())
        return _of_graph(graph)
    except _ERRORS as error:
        raise Stopped(f"{path.name}: TensorFlow cannot read it ({type(error).__name__})") from error


def _of_signature(function: Any) -> int:
    inside = _of_graph(function.graph.as_graph_def())
    captured = [tensor for tensor in function.captured_inputs if tensor.dtype != tf.resource]
    outside = (one for one in (*function.variables, *captured) if _is_weight(one.dtype))
    return inside + sum(int(prod(one.shape.as_list())) for one in outside)


def _of_graph(graph: Any) -> int:
    return sum(int(prod(dim.size for dim in tensor.tensor_shape.dim)) for tensor in _constants(graph))


def _constants(graph: Any) -> Iterator[Any]:
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            if node.op == "Const" and _is_weight(tf.as_dtype(node.attr["value"].tensor.dtype)):
                yield node.attr["value"].tensor


def _is_weight(dtype: tf.DType) -> bool:
    return bool(dtype.is_floating) or dtype in _NARROW
