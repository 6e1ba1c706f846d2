"""The numbers that an ONNX file holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from model_server.comparison.weighing import File
from model_server.failures import Stopped

_NOT_WEIGHTS = {TensorProto.UNDEFINED, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING}


def count(file: File) -> int:
    """Elements of the stored tensors, in subgraphs and functions too. Raises Stopped."""
    path = Path(file.path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise Stopped(f"{path.name}: the ONNX file cannot be read ({type(error).__name__})") from error
    inside = (tensor for function in model.functions for tensor in _constants(function.node))
    tensors = [*_tensors(model.graph), *inside]
    return sum(prod(tensor.dims) for tensor in tensors if tensor.data_type not in _NOT_WEIGHTS)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from (sparse.values for sparse in graph.sparse_initializer)
    yield from _constants(graph.node)


def _constants(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                yield attribute.t
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors(graph)
