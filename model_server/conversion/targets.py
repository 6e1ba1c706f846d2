"""What a network can be converted to."""

from __future__ import annotations

from shared import backends

_ALL = {
    "onnx": "onnx",
    "torchscript": "torchscript",
    "saved-model": "tensorflow",
    "frozen": "tensorflow",
    "litert": "litert",
}
BACKENDS = {target: backend for target, backend in _ALL.items() if backend in backends.EMBEDDED}
"""The targets that a backend of this version runs, each with it."""
