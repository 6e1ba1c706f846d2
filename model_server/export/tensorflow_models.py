"""TensorFlow: a SavedModel or a frozen graph of the user's own, each to the other, to ONNX and to LiteRT."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx
import tensorflow as tf
from google.protobuf.message import DecodeError

from model_server.export.litert import write_litert
from model_server.export.saved_model import freeze, read_frozen, to_onnx, write_frozen, write_saved_model
from model_server.failures import Stopped
from shared.artifacts import SAVED_MODEL

if TYPE_CHECKING:
    from shared.manifest import NetworkSpec

_ERRORS = (tf.errors.OpError, DecodeError, OSError, ValueError, RuntimeError, KeyError)
_FOLDER = "saved_model"


def convert(to: str, path: Path, network: NetworkSpec, folder: Path) -> tuple[str, str]:
    """Writes what `path` is, a SavedModel's file or a frozen graph, as `to` (onnx, saved-model, frozen or litert) into
    `folder` under the declared names: the file there, and how it was made. Raises Stopped."""
    try:
        return _write(to, path, network, folder), f"TensorFlow {tf.__version__}"
    except _ERRORS as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise Stopped(f"TensorFlow {tf.__version__} cannot convert {path.name!r}: {line}") from error


def _write(to: str, path: Path, network: NetworkSpec, folder: Path) -> str:
    signature = network.artifacts["tensorflow"].signature
    graph = freeze(path.parent, signature) if path.name == SAVED_MODEL else read_frozen(path)
    inputs, outputs = ([spec.name for spec in specs] for specs in (network.inputs, network.outputs))
    if to == "saved-model":
        return write_saved_model(graph, folder / _FOLDER, inputs, outputs).relative_to(folder).as_posix()
    if to == "litert":
        with TemporaryDirectory() as scratch:
            write_saved_model(graph, Path(scratch), inputs, outputs)
            write_litert(Path(scratch), folder / "model.tflite")
        return "model.tflite"
    if to == "frozen":
        write_frozen(graph, folder / "frozen_graph.pb")
        return "frozen_graph.pb"
    onnx.save(to_onnx(graph, inputs, outputs), str(folder / "model.onnx"))
    return "model.onnx"
