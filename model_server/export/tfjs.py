"""Reads a TensorFlow.js graph model (`model.json` and its weight shards) back into a TensorFlow GraphDef."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf import json_format

_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "uint8": "u1"}


def read_graph_model(path: Path) -> Any:
    """The GraphDef of the graph model whose JSON file is `path`, with every weight put back into its Const node.

    Raises ValueError for quantised weights and for shards that do not hold exactly the declared weights.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    weights = {name: value for group in document["weightsManifest"] for name, value in _weights(group, path.parent)}
    topology = document["modelTopology"]
    nodes = [_plain_node(node, known=node["name"] in weights) for node in topology["node"]]
    graph = json_format.ParseDict({"node": nodes, "versions": topology["versions"]}, tf.compat.v1.GraphDef())
    for node in graph.node:
        if node.op == "Const" and node.name in weights:
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(weights[node.name]))
    return graph


def _weights(group: dict[str, Any], folder: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """One group of the manifest: its shards are one byte string, its weights lie in it one after the other."""
    data = b"".join((folder / shard).read_bytes() for shard in group["paths"])
    offset = 0
    for weight in group["weights"]:
        if "quantization" in weight:
            raise ValueError(f"weight {weight['name']!r} is quantised, expected plain {weight['dtype']}")
        dtype, shape = np.dtype(_DTYPES[weight["dtype"]]), tuple(weight["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        yield weight["name"], np.frombuffer(data, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    if offset != len(data):
        raise ValueError(f"the shards {group['paths']} hold {len(data)} bytes, the manifest declares {offset}")


def _plain_node(node: dict[str, Any], *, known: bool) -> dict[str, Any]:
    """A node as protobuf's JSON form wants it. A known Const loses its placeholder value, the weight replaces it."""
    attributes = {
        key: _plain_attribute(value)
        for key, value in node.get("attr", {}).items()
        if not (known and node["op"] == "Const" and key == "value")
    }
    return {**node, "attr": attributes}


def _plain_attribute(attribute: dict[str, Any]) -> dict[str, Any]:
    """TensorFlow.js writes bytes as arrays of numbers; protobuf's JSON form wants base64."""
    plain = dict(attribute)
    if "s" in plain:
        plain["s"] = _base64(plain["s"])
    if "list" in plain:
        plain["list"] = {**plain["list"], "s": [_base64(text) for text in plain["list"].get("s") or []]}
    return plain


def _base64(text: str | list[int]) -> str:
    return text if isinstance(text, str) else base64.b64encode(bytes(text)).decode("ascii")
