"""Reads a TensorFlow.js graph model (`model.json` and its weight shards) back into a TensorFlow GraphDef."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import json_format

from model_server.export.tfjs_weights import read_weights


def read_graph_model(path: Path) -> Any:
    """The GraphDef of the graph model whose JSON file is `path`, with every weight put back into its Const node.

    Raises ValueError for shards that do not hold exactly the declared weights.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    weights = read_weights(document, path.parent)
    topology = document["modelTopology"]
    nodes = [_plain_node(node, known=node["name"] in weights) for node in topology["node"]]
    graph = json_format.ParseDict({"node": nodes, "versions": topology["versions"]}, tf.compat.v1.GraphDef())
    for node in graph.node:
        if node.op == "Const" and node.name in weights:
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(weights[node.name]))
    return graph


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
