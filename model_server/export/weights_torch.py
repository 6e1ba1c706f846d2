"""The numbers that a TorchScript file holds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from model_server.comparison.weighing import File
from model_server.failures import Stopped

_NARROW = (torch.int8, torch.uint8)
_CONSTANT = "prim::Constant"


def count(file: File) -> int:
    """Elements of the parameters, buffers and constants, each tensor once. Raises Stopped."""
    path = Path(file.path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated")
            module = torch.jit.load(str(path), map_location="cpu")
        tensors = {tensor.data_ptr(): tensor for tensor in _tensors(module)}
    except (RuntimeError, OSError, ValueError) as error:
        raise Stopped(f"{path.name}: the TorchScript file cannot be read ({type(error).__name__})") from error
    return sum(tensor.numel() for tensor in tensors.values() if _is_weight(tensor))


def _tensors(module: torch.jit.ScriptModule) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
    graph = module.inlined_graph  # its nodes end with it
    for node in graph.findAllNodes(_CONSTANT):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            yield node.t("value")


def _is_weight(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_quantized or tensor.dtype in _NARROW
