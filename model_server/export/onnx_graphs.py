"""Changes to an ONNX graph that leave what it computes: its input as raw pixels, its size, its precision."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from model_server.export.compact import store_weights_as_float16
from model_server.failures import Stopped
from shared.manifest import Preprocess

LARGEST_FILE = 2_000_000_000  # protobuf's own limit, with some room
M = TypeVar("M", bound=Message)
_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
_WITH_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}
# Less is no layer: YOLO's box decoding is a convolution with 16 numbers, which must stay exact.
_LEAST_WEIGHTS = 64


def load(path: Path) -> onnx.ModelProto:
    """The model with all its weights. Raises Stopped."""
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's errors share no base class
        raise Stopped(f"{path.name}: the ONNX file cannot be read ({type(error).__name__})") from error


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes `model`; its weights go into a file beside it where one file cannot hold them."""
    beside = model.ByteSize() > LARGEST_FILE
    onnx.save(model, str(path), save_as_external_data=beside, location=f"{path.name}.data" if beside else None)


def fold_normalisation(
    model: onnx.ModelProto, name: str, preprocess: Preprocess, layout: str, colour: str
) -> onnx.ModelProto:
    """A copy of `model` whose input `name` takes raw pixels, uint8 0..255, in `layout` and `colour` order, and makes of
    them what `preprocess` declares: the same float32 multiplication and addition, then the network's own dtype."""
    folded = _copy(model)
    (taken,) = (value for value in folded.graph.input if value.name == name)
    dtype = taken.type.tensor_type.elem_type
    if dtype not in _FLOATS:
        raise Stopped(f"input {name!r} does not take floats: there is no normalisation to fold")
    inner = f"{name}.normalised"
    for graph in _graphs(folded.graph):
        for node in graph.node:
            node.input[:] = [inner if used == name else used for used in node.input]
    nodes, constants = _normalising(name, inner, preprocess, (layout, colour), dtype)
    rest = list(folded.graph.node)
    del folded.graph.node[:]
    folded.graph.node.extend([*nodes, *rest])
    folded.graph.initializer.extend(constants)
    dims = [taken.type.tensor_type.shape.dim[preprocess.layout.index(axis)] for axis in layout]
    axes = [dim.dim_param or dim.dim_value for dim in dims]
    taken.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, axes))
    return folded


def set_size(model: onnx.ModelProto, inputs: Mapping[str, Sequence[int | str | None]]) -> onnx.ModelProto:
    """A copy of `model` with other axes for its inputs, a name for a free one and None for as it is. Shapes of what
    comes after them are forgotten, so that they are found anew."""
    resized = _copy(model)
    for value in resized.graph.input:
        for dim, axis in zip(value.type.tensor_type.shape.dim, inputs.get(value.name, ()), strict=False):
            if isinstance(axis, int):
                dim.dim_value = axis
            elif axis is not None:
                dim.dim_param = axis
    del resized.graph.value_info[:]
    for value in resized.graph.output:
        rank = len(value.type.tensor_type.shape.dim)
        value.type.tensor_type.ClearField("shape")
        value.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(rank))
    return onnx.shape_inference.infer_shapes(resized)


def output_shapes(model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """The shape of every output for these inputs. Raises Stopped where the graph cannot run on them."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, dict(inputs))
    except Exception as error:  # ONNX Runtime's errors share no base class
        sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise Stopped(f"the graph has its size baked in: it does not run on {sizes}") from error
    return {value.name: output.shape for value, output in zip(session.get_outputs(), outputs, strict=True)}


def half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` that stores its kernels as float16 and computes in float32."""
    return store_weights_as_float16(plain_weights(model))


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` that computes in float16 between its first and its last layer with weights. Inputs and outputs
    keep their dtype; what comes before and after stays float32, for a pixel coordinate does not fit float16."""
    plain = plain_weights(model)
    inside = body(plain)
    if not inside:
        raise Stopped("--half: the graph has no layer with weights of its own")
    outside = sorted({node.name for node in plain.graph.node} - inside)
    logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.ERROR)
    halved: onnx.ModelProto = convert_float_to_float16(plain, keep_io_types=True, node_block_list=outside)
    return _without_detours(halved)


def plain_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` with float32 weights where it had float16 ones behind a Cast, and with a name for each node."""
    plain = _copy(model)
    stored = {tensor.name: tensor for tensor in plain.graph.initializer}
    kept = []
    for at, node in enumerate(plain.graph.node):
        tensor = (
            stored.get(node.input[0]) if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT else None
        )
        if tensor is not None and tensor.data_type == TensorProto.FLOAT16:
            name = node.output[0]
            stored[name] = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), name)
        else:
            node.name = node.name or f"{node.op_type}_{at}"
            kept.append(node)
    kept_copies = [_copy(node) for node in kept]
    del plain.graph.node[:], plain.graph.initializer[:]
    plain.graph.node.extend(kept_copies)
    used = {name for graph in _graphs(plain.graph) for node in graph.node for name in node.input}
    used |= {value.name for value in plain.graph.output}
    plain.graph.initializer.extend(tensor for name, tensor in stored.items() if name in used)
    return plain


def body(model: onnx.ModelProto) -> set[str]:
    """The names of the nodes from the first to the last layers with weights: what comes before prepares pixels, what
    comes after decodes boxes and scores."""
    layers = _layers(model.graph)
    after = _reached(model.graph.node, layers, forward=True)
    before = _reached(list(reversed(model.graph.node)), layers, forward=False)
    return layers | (after & before)


def _without_detours(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what the library leaves between nodes that are both kept in float32: a way to float16 and back,
    under one name for each that takes the tensor."""
    clean = _copy(model)
    origin = {node.output[0]: node.input[0] for node in clean.graph.node if _casts(node, TensorProto.FLOAT16)}
    back = {
        node.output[0]: origin[node.input[0]]
        for node in clean.graph.node
        if _casts(node, TensorProto.FLOAT) and node.input[0] in origin
    }
    ends = {value.name for value in clean.graph.output}
    nodes = {node.output[0]: node for node in clean.graph.node if node.output[0] not in back.keys() - ends}
    for name in back.keys() & ends:
        nodes[name] = helper.make_node("Identity", [back[name]], [name], f"{name}/Identity")
    for graph in _graphs(clean.graph):
        for node in graph.node:
            node.input[:] = [back.get(name, name) for name in node.input]
    used = ends | {name for graph in _graphs(clean.graph) for node in graph.node for name in node.input}
    kept = [_copy(node) for node in nodes.values() if not used.isdisjoint(node.output)]
    del clean.graph.node[:]
    clean.graph.node.extend(kept)
    return clean


def _casts(node: onnx.NodeProto, dtype: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == dtype


def _layers(graph: onnx.GraphProto) -> set[str]:
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            sizes[node.output[0]] = int(np.prod(node.attribute[0].t.dims))
    return {
        node.name
        for node in graph.node
        if (at := _WITH_WEIGHTS.get(node.op_type)) is not None and sizes.get(node.input[at], 0) >= _LEAST_WEIGHTS
    }


def _reached(nodes: Sequence[onnx.NodeProto], layers: set[str], *, forward: bool) -> set[str]:
    """The nodes that come after a layer in the order of `nodes`, along their tensors."""
    tensors: set[str] = set()
    reached = set()
    for node in nodes:
        taken, given = (node.input, node.output) if forward else (node.output, node.input)
        if not tensors.isdisjoint(taken):
            reached.add(node.name)
        if node.name in layers or node.name in reached:
            tensors.update(given)
    return reached


def _normalising(
    name: str, inner: str, preprocess: Preprocess, raw: tuple[str, str], dtype: int
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes from pixels `name`, `raw` in layout and colour order, to `inner`, and their constants."""
    layout, colour = raw
    std = np.array(preprocess.std)
    shape = [3 if axis == "C" else 1 for axis in layout]
    arrays = {
        "order": np.array([2, 1, 0], np.int64) if colour != preprocess.colour else None,
        "gain": (preprocess.scale / std).astype(np.float32).reshape(shape),
        "offset": (-np.array(preprocess.mean) / std).astype(np.float32).reshape(shape),
    }
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": TensorProto.FLOAT})]
    if arrays["order"] is not None:
        steps.append(("Gather", ["order"], {"axis": layout.index("C")}))
    steps += [("Mul", ["gain"], {}), ("Add", ["offset"], {})]
    if layout != preprocess.layout:
        steps.append(("Transpose", [], {"perm": [layout.index(axis) for axis in preprocess.layout]}))
    if dtype != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": dtype}))
    nodes, tensor = [], name
    for at, (kind, constants, attributes) in enumerate(steps):
        output = inner if at == len(steps) - 1 else f"{inner}.{at}"
        used = [tensor, *(f"{inner}.{constant}" for constant in constants)]
        nodes.append(helper.make_node(kind, used, [output], f"{inner}/{kind}_{at}", **attributes))
        tensor = output
    named = [numpy_helper.from_array(array, f"{inner}.{key}") for key, array in arrays.items() if array is not None]
    return nodes, named


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and all that its nodes hold, which see its tensors by name."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graphs(inner)


def _copy(message: M) -> M:
    copy: M = type(message)()
    copy.CopyFrom(message)
    return copy
