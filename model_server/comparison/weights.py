"""How many numbers a model's files hold."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from model_server.comparison.weighing import File
from model_server.failures import Stopped

_COUNTERS = {
    "onnx": "model_server.export.weights_onnx",
    "torchscript": "model_server.export.weights_torch",
    "tensorflow": "model_server.export.weights_tensorflow",
}


def parameters(backend: str, files: Sequence[File]) -> tuple[int | None, str]:
    """The count over all files of `backend`, or None and why there is none.

    Counted is what training leaves behind and what converters add to it: stored tensors of floats and of the narrow
    integers of quantised models, batch statistics and tables of anchors included; not the integers that shapes and
    indices are made of.
    """
    if not files:
        return None, ""
    if backend not in _COUNTERS:
        return None, f"there is no counter for files of {backend!r}"
    try:
        counter = import_module(_COUNTERS[backend])
        return sum(counter.count(file) for file in files), ""
    except ImportError as error:
        return None, f"counting the parameters needs {error.name}, which is not installed"
    except Stopped as error:
        return None, str(error)
