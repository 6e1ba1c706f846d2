"""TensorFlow's forms of one network: a SavedModel, a frozen GraphDef, and ONNX made of either.

Everything goes through a frozen GraphDef whose placeholders and last nodes carry the names that model.json declares. A
GraphDef is a protobuf message of TensorFlow's, without a type that mypy knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf
import tf2onnx
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from model_server.export.canonical import canonical
from shared.artifacts import SAVED_MODEL

SIGNATURE = "serving_default"
OPSET = 17
_TAG = "serve"
_METHOD = "tensorflow/serving/predict"
_INSIDE = "network"


def write_frozen(graph: Any, path: Path) -> None:
    """Writes the GraphDef; the same one gives the same bytes."""
    path.write_bytes(graph.SerializeToString(deterministic=True))


def read_frozen(path: Path) -> Any:
    """The GraphDef in the file. Raises google.protobuf's DecodeError."""
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(path.read_bytes())
    return graph


def write_saved_model(
    graph: Any, folder: Path, inputs: Sequence[str], outputs: Sequence[str], signature: str = SIGNATURE
) -> Path:
    """Writes the frozen GraphDef as a SavedModel with one signature, and gives its one file.

    A frozen graph has no variables, so the file is all that there is, and the same graph gives the same bytes: unlike
    `tf.saved_model.save`, which leaves empty variables and a fingerprint with a random number beside it.
    `inputs` and `outputs` name tensors of the graph (`image` or `image:0`) and are the signature's names too.
    """
    with tf.Graph().as_default() as checked:
        tf.import_graph_def(graph, name="")
    saved = SavedModel(saved_model_schema_version=1)
    meta = saved.meta_graphs.add()
    meta.meta_info_def.tags.append(_TAG)
    meta.graph_def.CopyFrom(graph)
    definition = meta.signature_def[signature]
    definition.method_name = _METHOD
    for names, infos in ((inputs, definition.inputs), (outputs, definition.outputs)):
        for name in names:
            infos[name].CopyFrom(_tensor_info(checked.get_tensor_by_name(tensor_name(name))))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SAVED_MODEL
    path.write_bytes(saved.SerializeToString(deterministic=True))
    return path


def freeze(folder: Path, signature: str = SIGNATURE) -> Any:
    """The SavedModel's signature as a frozen GraphDef, its variables made constants; placeholders and last nodes have
    the signature's names. Raises ValueError for a signature that is not there and for what no constant can hold."""
    loaded = tf.saved_model.load(str(folder))
    if signature not in loaded.signatures:
        raise ValueError(f"there is no signature {signature!r} in {folder.name!r}, only {sorted(loaded.signatures)}")
    function = loaded.signatures[signature]
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    inputs = dict(zip(sorted(function.structured_input_signature[1]), frozen.inputs, strict=True))
    outputs = dict(zip(sorted(function.structured_outputs), frozen.outputs, strict=True))
    return renamed(frozen.graph.as_graph_def(), inputs, outputs)


def renamed(graph: Any, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    """The GraphDef with a placeholder for each of `inputs` and an end for each of `outputs`, under those names; the
    values are the tensors of the graph that they stand for."""
    with tf.Graph().as_default() as outer:
        fed = {
            tensor.name: tf.compat.v1.placeholder(tensor.dtype, tensor.shape, name=name)
            for name, tensor in inputs.items()
        }
        results = tf.import_graph_def(
            graph, input_map=fed, return_elements=[tensor.name for tensor in outputs.values()], name=_INSIDE
        )
        for name, result in zip(outputs, results, strict=True):
            tf.identity(result, name=name)
        return needed_for(outer.as_graph_def(), [*inputs, *outputs])


def needed_for(graph: Any, names: Sequence[str]) -> Any:
    """A copy of the GraphDef with those nodes only that the nodes `names` are or need, in their order."""
    nodes = {node.name: node for node in graph.node}
    wanted: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in wanted:
            wanted.add(name)
            stack.extend(_node_name(source) for source in nodes[name].input)
    kept = [node for node in graph.node if node.name in wanted]
    return tf.compat.v1.GraphDef(node=kept, versions=graph.versions, library=graph.library)


def to_onnx(graph: Any, inputs: Sequence[str], outputs: Sequence[str], opset: int = OPSET) -> onnx.ModelProto:
    """The frozen GraphDef as a checked ONNX model whose tensors have the names given here.

    A flat graph is written in its canonical form, the same bytes every time; one with loops or branches as tf2onnx
    leaves it.
    """
    names = {tensor_name(name): name for name in (*inputs, *outputs)}
    converted, _ = tf2onnx.convert.from_graph_def(
        graph,
        input_names=[tensor_name(name) for name in inputs],
        output_names=[tensor_name(name) for name in outputs],
        opset=opset,
        tensors_to_rename=names,
    )
    _name_free_axes(converted.graph)
    flat = _is_flat(converted.graph)
    model: onnx.ModelProto = (
        canonical(converted, producer=f"thinlens tf2onnx {tf2onnx.__version__}") if flat else converted
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def tensor_name(name: str) -> str:
    """`image:0` for `image`."""
    return name if ":" in name else f"{name}:0"


def _node_name(tensor: str) -> str:
    """`scope/name` of the input `^scope/name` or `scope/name:1`."""
    return tensor.removeprefix("^").partition(":")[0]


def _tensor_info(tensor: Any) -> Any:
    return TensorInfo(name=tensor.name, dtype=tensor.dtype.as_datatype_enum, tensor_shape=tensor.shape.as_proto())


def _name_free_axes(graph: onnx.GraphProto) -> None:
    """tf2onnx numbers them on and on in one process: the first one becomes `axis_0`."""
    names: dict[str, str] = {}
    for value in (*graph.input, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = names.setdefault(axis.dim_param, f"axis_{len(names)}")


def _is_flat(graph: onnx.GraphProto) -> bool:
    return not any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute)
