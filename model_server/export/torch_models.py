"""PyTorch: a module of the user's own, or a TorchScript file, to ONNX and to TorchScript."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from model_server.failures import Stopped

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.call import Call
    from shared.manifest import NetworkSpec, Preprocess
    from shared.tensors import Tensors

_OPSET = 18


class ModuleRun:
    """A Run (see shared.backends): the module itself, called with the declared inputs in their order."""

    def __init__(self, module: nn.Module, network: NetworkSpec) -> None:
        self._module = module
        self._network = network

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        call.check()
        arguments = [torch.tensor(inputs[spec.name]) for spec in self._network.inputs]
        try:
            with torch.inference_mode():
                outputs = in_order(self._module(*arguments), self._names)
                return {name: output.numpy() for name, output in zip(self._names, outputs, strict=True)}
        except Stopped:
            raise
        except (Exception, SystemExit) as error:  # as many ways as a user's module can fail
            raise Stopped(f"the module fails on what model.json declares: {_line(error)}") from error

    @property
    def _names(self) -> list[str]:
        return [spec.name for spec in self._network.outputs]

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


class InOrder(nn.Module):
    """A module that answers with a tuple in the declared order where its own answer is a dict."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.names = list(names)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return in_order(self.module(*inputs), self.names)


class Normalise(nn.Module):
    """Raw pixels, uint8 0..255 in the layout of `preprocess` -> what it makes of them, as `dtype`."""

    def __init__(self, preprocess: Preprocess, dtype: str) -> None:
        super().__init__()
        self.dtype = getattr(torch, dtype)
        std = np.array(preprocess.std)
        shape = [3 if axis == "C" else 1 for axis in preprocess.layout]
        self.gain = _fixed((preprocess.scale / std).reshape(shape))
        self.offset = _fixed((-np.array(preprocess.mean) / std).reshape(shape))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.to(torch.float32) * self.gain + self.offset).to(self.dtype)


def folded(module: nn.Module, preprocess: Preprocess, dtype: str) -> nn.Module:
    """A module that takes raw pixels where `module` takes normalised ones."""
    return nn.Sequential(Normalise(preprocess, dtype), module).eval()


def _fixed(values: npt.NDArray[np.float64]) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32), requires_grad=False)


def in_order(outputs: Any, names: Sequence[str]) -> tuple[Tensor, ...]:
    """A module's answer (one tensor, some in order, or a dict) as a tuple in the order of `names`. Raises Stopped."""
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    if isinstance(outputs, Mapping):
        missing = [name for name in names if name not in outputs]
        if missing:
            raise Stopped(f"the module gives no output {missing[0]!r}, only {sorted(map(str, outputs))}")
        outputs = tuple(outputs[name] for name in names)
    if not isinstance(outputs, list | tuple) or not all(isinstance(output, Tensor) for output in outputs):
        raise Stopped(f"the module gives a {type(outputs).__name__}, expected tensors: wrap it in one that gives them")
    if len(outputs) != len(names):
        raise Stopped(f"the module gives {len(outputs)} outputs, model.json declares {len(names)}: {', '.join(names)}")
    return tuple(outputs)


def load_module(path: str) -> nn.Module:
    """The module that the factory `package.module:function` gives, for inference. Raises Stopped."""
    place, _, name = path.partition(":")
    try:
        factory = getattr(import_module(place), name)
    except (Exception, SystemExit) as error:  # whatever the user's file does when it is run
        raise Stopped(f"--module: cannot load {path!r}, expected package.module:function: {_named(error)}") from error
    try:
        module = factory()
    except (Exception, SystemExit) as error:
        raise Stopped(f"--module: {path} fails: {_named(error)}") from error
    if not isinstance(module, nn.Module):
        raise Stopped(f"--module: {path} gives a {type(module).__name__}, expected a torch.nn.Module")
    return module.eval().requires_grad_(False)


def load_script(path: Path) -> nn.Module:
    """The TorchScript file `path`, on the processor. Raises Stopped."""
    try:
        with _quiet():
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise Stopped(f"{path.name}: PyTorch {torch.__version__} cannot read it: {_line(error)}") from error
    return module.eval()


def to_torchscript(module: nn.Module, network: NetworkSpec, inputs: Tensors, path: Path) -> str:
    """Writes `module` as TorchScript to `path`, and says how: scripted, or where that fails traced with `inputs`."""
    arguments = _arguments(network, inputs)
    with _quiet(), torch.inference_mode():
        try:
            script, how = torch.jit.script(module), "scripted"
            script(*arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # scripting fails in as many ways as there is Python
            how = f"traced on one picture, which fixes branches: scripting failed ({_line(error)})"
            script = _traced(module, network, arguments)
        try:
            torch.jit.freeze(script).save(str(path))
        except RuntimeError as error:
            raise Stopped(f"PyTorch {torch.__version__} cannot freeze this module: {_line(error)}") from error
    return f"PyTorch {torch.__version__}, {how}"


def to_onnx(module: nn.Module, network: NetworkSpec, inputs: Tensors, path: Path) -> str:
    """Writes `module` as ONNX to `path` under the declared names, its axes free where model.json has null, and says
    how. A TorchScript module goes through PyTorch's older exporter: the current one refuses it. Raises Stopped."""
    script = isinstance(module, torch.jit.ScriptModule)
    with _quiet(), torch.inference_mode():
        arguments = _arguments(network, inputs) if script else _several(network, _arguments(network, inputs))
        try:
            ordered = module if script else _ordered(module, network, arguments)
            (_script_to_onnx if script else _module_to_onnx)(ordered, network, arguments, path)
        except Stopped:
            raise
        except (Exception, SystemExit) as error:  # the exporters raise whatever their many stages do
            raise Stopped(f"PyTorch {torch.__version__} cannot export this to ONNX: {_cause(error)}") from error
    exporter = "its older exporter, which takes TorchScript" if script else "torch.export"
    return f"PyTorch {torch.__version__}, {exporter}"


def _module_to_onnx(module: nn.Module, network: NetworkSpec, arguments: tuple[Tensor, ...], path: Path) -> None:
    free = tuple(
        {at: torch.export.Dim.DYNAMIC for at, axis in enumerate(spec.shape) if axis is None} for spec in network.inputs
    )
    program = torch.onnx.export(
        module,
        arguments,
        dynamo=True,
        verbose=False,
        opset_version=_OPSET,
        input_names=[spec.name for spec in network.inputs],
        output_names=[spec.name for spec in network.outputs],
        dynamic_shapes=(free,) if isinstance(module, InOrder) else free,
    )
    assert program is not None
    program.save(str(path), external_data=_large(module))


def _script_to_onnx(module: nn.Module, network: NetworkSpec, arguments: tuple[Tensor, ...], path: Path) -> None:
    specs = (*network.inputs, *network.outputs)
    torch.onnx.export(
        module,
        arguments,
        str(path),
        dynamo=False,
        opset_version=_OPSET,
        input_names=[spec.name for spec in network.inputs],
        output_names=[spec.name for spec in network.outputs],
        dynamic_axes={spec.name: _free(spec.name, spec.shape) for spec in specs if None in spec.shape},
    )


def _free(name: str, shape: Sequence[int | None]) -> dict[int, str]:
    return {at: f"{name}_{at}" for at, axis in enumerate(shape) if axis is None}


def _ordered(module: nn.Module, network: NetworkSpec, arguments: tuple[Tensor, ...]) -> nn.Module:
    names = [spec.name for spec in network.outputs]
    outputs = module(*arguments)
    in_order(outputs, names)
    return InOrder(module, names).eval() if isinstance(outputs, Mapping) else module


def _traced(module: nn.Module, network: NetworkSpec, arguments: tuple[Tensor, ...]) -> torch.jit.ScriptModule:
    try:
        traced: torch.jit.ScriptModule = torch.jit.trace(_ordered(module, network, arguments), arguments)
    except Stopped:
        raise
    except (Exception, SystemExit) as error:  # as many ways as a user's module can fail
        raise Stopped(
            f"PyTorch {torch.__version__} can neither script nor trace this module: {_line(error)}"
        ) from error
    return traced


def _arguments(network: NetworkSpec, inputs: Tensors) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(inputs[spec.name]) for spec in network.inputs)


def _several(network: NetworkSpec, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The arguments with 2 where a free axis is 1, which the exporter would take for fixed."""
    several = []
    for spec, argument in zip(network.inputs, arguments, strict=True):
        times = [2 if axis is None and side == 1 else 1 for axis, side in zip(spec.shape, argument.shape, strict=True)]
        several.append(argument.repeat(*times))
    return tuple(several)


def _large(module: nn.Module) -> bool:
    weights = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    return int(weights) > 1_500_000_000


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(":")[:200]


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {_line(error)}"


def _cause(error: BaseException) -> str:
    """The first line of what lies at the bottom: the exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _line(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch tells its own developers what it has deprecated, and what optional package it does without."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
