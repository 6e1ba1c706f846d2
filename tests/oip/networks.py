"""The ONNX networks of a bundle for servers that know nothing of this project: model.json is read as plain JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

Arrays = dict[str, Any]
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


@dataclass(frozen=True)
class Served:
    """One network under the name that it is served as; its tensors as the protocol describes them."""

    name: str
    path: Path
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]

    def open(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        return ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def run(self, session: ort.InferenceSession, inputs: Arrays) -> Arrays:
        names = [tensor["name"] for tensor in self.outputs]
        return dict(zip(names, session.run(names, inputs), strict=True))


def networks(bundle: Path) -> list[Served]:
    model = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
    return [
        Served(
            network.get("served_as") or f"{model['name']}.{name}",
            bundle / network["artifacts"]["onnx"]["file"],
            _described(network["inputs"]),
            _described(network["outputs"]),
        )
        for name, network in model["networks"].items()
    ]


def _described(tensors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor["name"],
            "datatype": DATATYPES[tensor["dtype"]],
            "shape": [-1 if axis is None else axis for axis in tensor["shape"]],
        }
        for tensor in tensors
    ]
