"""What Triton is told of a network: its config.pbtxt, made from the declaration in model.json.

The fields are those of ModelConfig in Triton's model_config.proto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from model_server.failures import Stopped
from model_server.triton.text_format import Message, Word, entries
from shared.errors import ConfigurationError
from shared.forwarding import INPUTS, OUTPUTS
from shared.manifest import Bundle, NetworkSpec, Preprocess
from shared.tasks.companions import MASK, told_apart
from shared.tensors import TensorSpec

Platform = Literal["onnx", "torchscript", "tensorflow", "python"]
Device = Literal["cpu", "gpu"]
Accelerator = Literal["tensorrt", "openvino"]

FRAMEWORKS: tuple[Platform, ...] = ("onnx", "torchscript", "tensorflow")
"""Artifacts in the order that they are preferred in."""

_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
_ACCELERATED: dict[Accelerator, tuple[Device, str, tuple[Platform, ...], dict[str, str]]] = {
    # Full precision: what a caller gets must not depend on where it was computed.
    "tensorrt": ("gpu", "gpu_execution_accelerator", ("onnx", "tensorflow"), {"precision_mode": "FP32"}),
    "openvino": ("cpu", "cpu_execution_accelerator", ("onnx",), {}),
}
_FREE_SIDE = 640  # of the picture that a network of free size is warmed up with


@dataclass(frozen=True, slots=True)
class Serving:
    """How a bundle is to be served. `platform` None takes the first framework that every network has a file for;
    `lacking` are the platforms that the server has not, and why."""

    platform: Platform | None = None
    forward: Literal["tensor", "encoded"] = "tensor"
    device: Device = "cpu"
    instances: int | None = None
    max_batch: int = 8
    accelerator: Accelerator | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)


def network_config(
    bundle: Bundle, network: NetworkSpec, kind: Message, parameters: dict[str, str], serving: Serving
) -> Message:
    """The config.pbtxt of one network; `kind` are the fields that say which of Triton's backends runs it."""
    batch = (
        serving.max_batch if serving.max_batch > 1 and may_be_batched(network, bundle.model.preprocess.layout) else 0
    )
    return {
        "name": network.served_as,
        **kind,
        "max_batch_size": batch,
        "input": [_tensor(spec, batch) for spec in network.inputs],
        "output": [_tensor(spec, batch) for spec in network.outputs],
        **_running(serving, serving.instances or 1),
        **({"dynamic_batching": {}} if batch else {}),
        **_optimization(serving),
        "model_warmup": _warmup(bundle.model.preprocess, network, batch),
        "parameters": entries({key: {"string_value": value} for key, value in sorted(parameters.items())}),
    }


def encoded_config(bundle: Bundle, runs: dict[str, str], serving: Serving) -> Message:
    """The config.pbtxt of the model that takes pictures as they came; `runs` are served names by network."""
    return {
        "name": bundle.model.name,
        "backend": "python",
        "max_batch_size": 0,
        "input": [_tensor(spec, 0) for spec in INPUTS],
        "output": [_tensor(spec, 0) for spec in OUTPUTS],
        # It decodes and draws on the processor, one picture at a time in each instance.
        **_running(Serving(device="cpu"), serving.instances or 2),
        "parameters": entries({f"run.{network}": {"string_value": name} for network, name in sorted(runs.items())}),
    }


def may_be_batched(network: NetworkSpec, layout: str) -> bool:
    """Whether axis 0 is that of a batch: free in every tensor, with something left without it, and none of a picture's
    own."""
    return "N" in layout and all(
        len(spec.shape) > 1 and spec.shape[0] is None for spec in (*network.inputs, *network.outputs)
    )


def check_accelerator(serving: Serving, platform: Platform) -> None:
    """Raises Stopped where Triton has no such accelerator for that platform and device."""
    if serving.accelerator is None:
        return
    device, _, platforms, _ = _ACCELERATED[serving.accelerator]
    if serving.device != device or platform not in platforms:
        raise Stopped(
            f"--accelerator {serving.accelerator} needs --device {device} and --platform {' or '.join(platforms)}, "
            f"found {serving.device} and {platform}"
        )


def check_axes(network: NetworkSpec) -> None:
    """Raises Stopped for a tensor without axes: Triton has none."""
    for spec in (*network.inputs, *network.outputs):
        if not spec.shape:
            raise Stopped(
                f"{network.field}: {spec.name!r} has no axes, and every tensor of Triton has; export it as [1]"
            )


def check_positional(network: NetworkSpec) -> None:
    """Raises Stopped where Triton's PyTorch backend would take the tensors for others than the declared ones.

    A TorchScript file names none of its outputs. Triton goes by the order in config.pbtxt, which is model.json's, but
    for inputs that are all called what forward's arguments are, and for names that all end in `__` and a number: that
    number is then the position (pytorch_backend, src/pt/model_instance_state.cc, GetNamingConvention).
    """
    for kind, specs in (("inputs", network.inputs), ("outputs", network.outputs)):
        found = [index for spec in specs if (index := _position(spec.name)) is not None]
        if len(found) == len(specs) and found != list(range(len(specs))):
            raise Stopped(
                f"{network.field}.{kind}: Triton takes the number at the end of such names for the position, "
                f"expected 0 to {len(specs) - 1} in order, found {[spec.name for spec in specs]}"
            )


def _position(name: str) -> int | None:
    """The position that Triton's PyTorch backend reads from a name, if it reads one."""
    _, separator, index = name.partition("__")
    return int(index or 0) if separator and set(index) <= set("0123456789") else None


def _tensor(spec: TensorSpec, batch: int) -> Message:
    return {"name": spec.name, "data_type": _type(spec), "dims": _dims(spec.shape[1:] if batch else spec.shape)}


def _type(spec: TensorSpec) -> Word:
    return Word(_TYPES[spec.dtype])


def _dims(shape: Sequence[int | None]) -> list[int]:
    return [-1 if axis is None else axis for axis in shape]


def _running(serving: Serving, count: int) -> Message:
    return {
        "instance_group": {"count": count, "kind": Word(f"KIND_{serving.device.upper()}")},
        "version_policy": {"latest": {"num_versions": 1}},
    }


def _optimization(serving: Serving) -> Message:
    if serving.accelerator is None:
        return {}
    _, field, _, parameters = _ACCELERATED[serving.accelerator]
    pairs: list[Message] = [{"key": key, "value": value} for key, value in parameters.items()]
    accelerator: Message = {"name": serving.accelerator, "parameters": pairs}
    return {"optimization": {"execution_accelerators": {field: accelerator}}}


def _warmup(preprocess: Preprocess, network: NetworkSpec, batch: int) -> Message:
    """One run on zeros before the network counts as ready."""
    shapes = _warm_shapes(preprocess, network)
    inputs: dict[str, Message] = {
        spec.name: {
            "data_type": _type(spec),
            "dims": list(shapes[spec.name][1 if batch else 0 :]),
            "zero_data": True,
        }
        for spec in network.inputs
    }
    return {"name": "zeros", "batch_size": 1, "inputs": entries(inputs)}


def _warm_shapes(preprocess: Preprocess, network: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """By input name: the declared shape, its free axes as those of a picture that model.json has prepared; 1 where it
    does not say."""
    letters = {spec.name: _letters(spec, preprocess.layout) for spec in network.inputs}
    sides = _sides(preprocess)
    try:
        picture, others = told_apart(network.inputs, network.field)
    except ConfigurationError:  # a network that no family of ours knows: a picture is what has the layout's rank
        return {spec.name: _filled(spec, letters[spec.name], sides) for spec in network.inputs}
    shown = _filled(picture, letters[picture.name], sides)
    sides |= {letter: axis for letter, axis in zip(letters[picture.name], shown, strict=True) if letter in "HW"}
    known = {MASK: "NHW"}
    rest = {spec.name: _filled(spec, known.get(role, ("N", "2")), sides | {"2": 2}) for role, spec in others.items()}
    return {picture.name: shown} | rest


def _letters(spec: TensorSpec, layout: str) -> str:
    return layout if len(spec.shape) == len(layout) else "N" * len(spec.shape)


def _filled(spec: TensorSpec, letters: Sequence[str], sides: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        sides.get(letter, 1) if axis is None else axis for axis, letter in zip(spec.shape, letters, strict=True)
    )


def _sides(preprocess: Preprocess) -> dict[str, int]:
    """The free sides of a prepared picture."""
    side = preprocess.side or _FREE_SIDE
    height, width = preprocess.size or (side, side)
    step = preprocess.multiple_of
    return {"N": 1, "H": -(-height // step) * step, "W": -(-width // step) * step}
