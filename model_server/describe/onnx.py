"""An ONNX file, by ONNX Runtime."""

from __future__ import annotations

import re
from pathlib import Path

import onnxruntime as ort

from model_server.describe import labels
from model_server.describe.looked import Asked, Looked, Samples, chosen, spec
from model_server.failures import Stopped
from shared.backends.declared import Found

_DTYPES = {"float": "float32", "double": "float64"}


def look(path: Path, asked: Asked, _: Samples) -> Looked:
    """Reads everything from the graph. Raises Stopped."""
    if asked.inputs or asked.signature:
        raise Stopped("--input and --signature are for other files: an ONNX file says itself what it takes")
    session = _opened(path)
    names = session.get_modelmeta().custom_metadata_map.get("names")
    return Looked(
        inputs=[spec(_found(value)) for value in session.get_inputs()],
        outputs=chosen([spec(_found(value)) for value in session.get_outputs()], asked.outputs),
        labels=labels.parsed(names) if names is not None and asked.labels is None else None,
    )


def _opened(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base class of their own
        raise Stopped(f"{path}: ONNX Runtime cannot open it: {error}") from error


def _found(value: ort.NodeArg) -> Found:
    kind = re.fullmatch(r"tensor\((\w+)\)", value.type)
    if kind is None:
        raise Stopped(f"tensor {value.name!r} is a {value.type}, expected a plain tensor")
    shape = tuple(axis if isinstance(axis, int) and axis > 0 else None for axis in value.shape)
    return Found(value.name, _DTYPES.get(kind[1], kind[1]), shape)
