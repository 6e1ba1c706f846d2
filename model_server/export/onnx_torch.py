"""An ONNX graph as a PyTorch module with the very same weights, and as a TorchScript file.

Only the operators that the bundled models need are here; a graph with another one is refused by its name. Semantics are
those of the ONNX operator specification, opset 13 and later, of inference.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

Attributes: TypeAlias = dict[str, Any]
_OLDEST_OPSET = 13  # since then Squeeze, Unsqueeze and Split take their axes as inputs
_DTYPES = {
    TensorProto.BOOL: torch.bool,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.FLOAT: torch.float32,
}


@dataclass(frozen=True)
class _Operator:
    """How one operator is computed, and which of its inputs are numbers that the graph must hold as constants."""

    compute: Callable[..., Any]
    numbers: range = range(0)


@dataclass(frozen=True)
class _Step:
    """A node: what it computes from tensors by name, and numbers."""

    compute: Callable[..., Any]
    attributes: Attributes
    inputs: tuple[str | float | list[int] | None, ...]
    outputs: tuple[str, ...]


class OnnxModule(torch.nn.Module):
    """The graph's inputs, in its order -> its outputs, in its order: a tensor for one, else a tuple.

    Weights keep the dtype that the file stores them in; its Cast nodes are steps like the others. Raises ValueError
    that names what the graph has and this module does not.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        _check(model)
        graph = model.graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        self._inputs = [value.name for value in graph.input if value.name not in stored]
        self._outputs = [value.name for value in graph.output]
        self._steps = [_step(node, stored) for node in graph.node]
        self._weights: dict[str, str] = {}
        for name in dict.fromkeys(name for step in self._steps for name in step.inputs if isinstance(name, str)):
            if name in stored:
                self._weights[name] = name.replace(".", "_").replace(":", "_")
                self.register_buffer(self._weights[name], torch.from_numpy(numpy_helper.to_array(stored[name]).copy()))

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        values = dict(zip(self._inputs, inputs, strict=True))
        values |= {name: getattr(self, attribute) for name, attribute in self._weights.items()}
        for step in self._steps:
            given = [values[value] if isinstance(value, str) else value for value in step.inputs]
            made = step.compute(step.attributes, *given)
            values |= zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=True)
        answer = tuple(values[name] for name in self._outputs)
        return answer if len(answer) > 1 else answer[0]


def torchscript(module: torch.nn.Module, examples: Sequence[Tensor]) -> bytes:
    """`module`, traced on `examples`, as a TorchScript file: the same bytes each time that a new process makes it.

    A trace is right for the sizes of its examples only. What a file would say of the machine that made it is left out.
    """
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
        traced = torch.jit.trace(module.eval(), tuple(examples))
        file = BytesIO()
        torch.jit.save(traced, file)
    return _without_places(file.getvalue())


def _without_places(archive: bytes) -> bytes:
    """The archive without the records that only lead an error's message back to lines of Python: they hold paths."""
    reader = torch._C.PyTorchFileReader(BytesIO(archive))
    file = BytesIO()
    writer = torch._C.PyTorchFileWriter(file)
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and not name.startswith(".data/") and name != "version":
            content = reader.get_record(name)
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return file.getvalue()


def _check(model: onnx.ModelProto) -> None:
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    if opsets.get("", 0) < _OLDEST_OPSET:
        raise ValueError(f"expected opset {_OLDEST_OPSET} or later, found {opsets.get('', 0)}")
    kinds = {f"{node.domain}::{node.op_type}".removeprefix("::") for node in model.graph.node}
    if unknown := sorted(kinds - _OPERATORS.keys()):
        raise ValueError(f"these operators cannot be converted to PyTorch: {', '.join(unknown)}")


def _step(node: onnx.NodeProto, stored: dict[str, TensorProto]) -> _Step:
    operator = _OPERATORS[node.op_type]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    inputs = [
        None if not name else _numbers(node, name, stored) if at in operator.numbers else name
        for at, name in enumerate(node.input)
    ]
    return _Step(operator.compute, attributes | {"outputs": len(node.output)}, tuple(inputs), tuple(node.output))


def _numbers(node: onnx.NodeProto, name: str, stored: dict[str, TensorProto]) -> float | list[int]:
    if name not in stored:
        raise ValueError(f"{node.op_type}: input {name!r} has to be a constant of the graph")
    numbers: float | list[int] = numpy_helper.to_array(stored[name]).tolist()
    return numbers


def _conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if weight.ndim != 4 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ValueError("Conv: expected two dimensions and explicit pads")
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    pads = [top, left]
    if (top, left) != (bottom, right):
        x, pads = functional.pad(x, [left, right, top, bottom]), [0, 0]
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return functional.conv2d(x, weight, bias, strides, pads, dilations, attributes.get("group", 1))


def _batch_normalization(attributes: Attributes, x: Tensor, *statistics: Tensor) -> Tensor:
    if attributes.get("training_mode", 0):
        raise ValueError("BatchNormalization: expected a graph for inference, found training_mode")
    scale, bias, mean, variance = statistics
    return functional.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _reshape(attributes: Attributes, x: Tensor, shape: list[int]) -> Tensor:
    if attributes.get("allowzero", 0):
        raise ValueError("Reshape: allowzero is not known")
    return x.reshape([side or x.shape[axis] for axis, side in enumerate(shape)])


def _unsqueeze(_: Attributes, x: Tensor, axes: list[int]) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _split(attributes: Attributes, x: Tensor, sizes: list[int] | None = None) -> tuple[Tensor, ...]:
    axis = attributes.get("axis", 0)
    parts: tuple[Tensor, ...] = x.split(sizes, axis) if sizes else x.chunk(attributes["outputs"], axis)
    return parts


def _slice(
    _: Attributes,
    x: Tensor,
    starts: list[int],
    ends: list[int],
    axes: list[int] | None = None,
    steps: list[int] | None = None,
) -> Tensor:
    cuts = [slice(None)] * x.ndim
    for at, axis in enumerate(axes or range(len(starts))):
        step = steps[at] if steps else 1
        if step < 1:
            raise ValueError(f"Slice: expected steps from 1, found {step}")
        cuts[axis] = slice(starts[at], ends[at], step)
    return x[tuple(cuts)]


_OPERATORS = {
    "Add": _Operator(lambda _, a, b: a + b),
    "BatchNormalization": _Operator(_batch_normalization),
    "Cast": _Operator(lambda attributes, x: x.to(_DTYPES[attributes["to"]])),
    "Clip": _Operator(lambda _, x, low=None, high=None: torch.clamp(x, low, high), range(1, 3)),
    "Concat": _Operator(lambda attributes, *parts: torch.cat(parts, attributes["axis"])),
    "Conv": _Operator(_conv),
    "Exp": _Operator(lambda _, x: torch.exp(x)),
    "Mul": _Operator(lambda _, a, b: a * b),
    "Reshape": _Operator(_reshape, range(1, 2)),
    "Sigmoid": _Operator(lambda _, x: torch.sigmoid(x)),
    "Slice": _Operator(_slice, range(1, 5)),
    "Split": _Operator(_split, range(1, 2)),
    "Squeeze": _Operator(lambda _, x, axes=None: x.squeeze(axes) if axes else x.squeeze(), range(1, 2)),
    "Sub": _Operator(lambda _, a, b: a - b),
    "Sum": _Operator(lambda _, *parts: sum(parts[1:], parts[0])),
    "Transpose": _Operator(lambda attributes, x: x.permute(attributes.get("perm", list(range(x.ndim))[::-1]))),
    "Unsqueeze": _Operator(_unsqueeze, range(1, 2)),
}


def read(path: Path) -> OnnxModule:
    """The module of an ONNX file. Raises ValueError."""
    module = OnnxModule(onnx.load(path))
    module.eval()
    return module
