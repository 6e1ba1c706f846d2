"""TorchScript inside this process, on the processor or on a CUDA device."""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shared.artifacts import verified
from shared.backends.declared import check_outputs
from shared.errors import ConfigurationError, ModelOutputMismatch, OutOfMemory, WrongAnswer
from shared.host import cores

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.call import Call
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Tensors

_ERRORS = (RuntimeError, torch.jit.Error, TypeError, ValueError, IndexError, OSError)
_OUT_OF_MEMORY = ("out of memory", "can't allocate", "bad_alloc", "alloc_failed")
_IN_SCRIPT = "The following operation failed in the TorchScript interpreter."
_SINGLE, _LISTED = ("Tensor", "Optional[Tensor]"), "List[Tensor]"
_log = logging.getLogger("thinlens")


class TorchScriptBackend:
    """A Backend (see shared.backends)."""

    def __init__(self, settings: Settings) -> None:
        self._device = _device(settings.device)
        torch.set_num_threads(settings.threads or cores())
        # Convolutions of 10 bits' precision would give other scores than every other backend does.
        torch.backends.cudnn.allow_tf32 = False

    def open(self, network: NetworkSpec) -> TorchScriptRun:
        path, _ = verified(network, "torchscript")
        module = self._loaded(path, network)
        return TorchScriptRun(module, _listed(module, network), network, self._device)

    def _loaded(self, path: Path, network: NetworkSpec) -> torch.jit.ScriptModule:
        try:
            return _frozen(load_script(path, self._device))
        except torch.OutOfMemoryError as error:
            raise ConfigurationError(f"{network.field}: the memory of {self._device} is too small for it") from error
        except _ERRORS as error:
            raise ConfigurationError(
                f"{network.field}: PyTorch {torch.__version__} cannot open {path.name!r}: "
                f"{kind_of(path) or _sentence(error, path)}"
            ) from error


class TorchScriptRun:
    """A Run (see shared.backends): one frozen script, which many threads may call at once. Arguments go in the order
    of the network's inputs; `listed` says which of them the script takes as a list of pictures."""

    def __init__(
        self, module: torch.jit.ScriptModule, listed: Sequence[bool], network: NetworkSpec, device: torch.device
    ) -> None:
        self._module: torch.jit.ScriptModule | None = module
        self._arguments = list(zip((spec.name for spec in network.inputs), listed, strict=True))
        self._network = network
        self._device = device
        self._has_answered = False

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        call.check()
        module = self._module
        assert module is not None, "called after close"
        try:
            # The profiling executor would run the script twice in slow motion, and again for each new size, to fuse
            # what a frozen script has already fused or what cannot be fused on a processor.
            with torch.inference_mode(), torch.jit.optimized_execution(False):
                outputs = self._arrays(module(*(self._tensor(inputs[name], each) for name, each in self._arguments)))
        except MemoryError as error:
            raise self._out_of_memory() from error
        except _ERRORS as error:
            if isinstance(error, torch.OutOfMemoryError) or _tells_of_memory(error):
                raise self._out_of_memory() from error
            raise self._wrong(error, call) from error
        checked = check_outputs(self._network, outputs)
        self._has_answered = True
        return checked

    def ready(self) -> bool:
        return self._module is not None

    def close(self) -> None:
        self._module = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _tensor(self, array: npt.NDArray[Any], listed: bool) -> Any:
        # Scripts take views of their input for granted; PyTorch warns of memory that it must not write to.
        tensor = torch.from_numpy(np.require(array, requirements=("C", "W"))).to(self._device)
        return [tensor] if listed else tensor

    def _arrays(self, answer: Any) -> dict[str, npt.NDArray[Any]]:
        named = _named(answer, [spec.name for spec in self._network.outputs])
        return {spec.name: _array(spec.name, named[spec.name]) for spec in self._network.outputs if spec.name in named}

    def _out_of_memory(self) -> OutOfMemory:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # what this request has left in PyTorch's own pool is needed by a smaller one
        return OutOfMemory("there is not enough memory to run the model on this picture")

    def _wrong(self, error: Exception, call: Call) -> WrongAnswer:
        words = _sentence(error)
        _log.warning("%s failed: %s", self._network.field, words, extra={"fields": {"request_id": call.request_id}})
        if self._has_answered:
            return WrongAnswer("the model failed on this picture; the log tells more under the request id")
        # A script does not say what it takes: that model.json is wrong is known only now.
        return WrongAnswer(f"the model has not yet answered to what model.json declares: {words}")


def _device(name: str) -> torch.device:
    """The device of that name. Raises ConfigurationError where it is not there."""
    kind, _, index = name.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or int(index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"THINLENS_DEVICE: there is no {name!r} for PyTorch {torch.__version__}; "
            f"it finds cpu and {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device("cuda", int(index or 0))


def load_script(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    """The script, for inference. Raises what PyTorch raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated")
        try:
            return torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            if "torchvision::" not in str(error) or not _has_torchvision():
                raise
        return torch.jit.load(str(path), map_location=device).eval()


def _has_torchvision() -> bool:
    """Whether torchvision is here, whose operators a script can use once it is imported. Few need them, and it is slow
    to import, so it is not at the top."""
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:  # one built for another PyTorch fails in its own ways
        _log.info("torchvision, which the script needs, cannot be imported: %s", _sentence(error))
        return False
    return True


def _frozen(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The script with its weights as constants: casts of stored weights and factors after a convolution are folded."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.freeze` is deprecated")
        try:
            # Freezing removes the methods that `forward` calls, and an error inside one would then be told with their
            # names, which crashes the process (PyTorch 2.13); what has been inlined before has the names of the rest.
            torch._C._jit_pass_inline(module.forward.graph)
            return torch.jit.freeze(module)
        except RuntimeError as error:
            _log.info("the script cannot be frozen and runs as it is: %s", _sentence(error))
            return module


def _listed(module: torch.jit.ScriptModule, network: NetworkSpec) -> list[bool]:
    """For each declared input whether the script takes it as a list.

    Raises ConfigurationError where it cannot take them.
    """
    arguments = module.forward.schema.arguments[1:]
    needed = sum(not argument.has_default_value() for argument in arguments)
    found = [f"{argument.name}: {argument.type}" for argument in arguments]
    if not needed <= len(network.inputs) <= len(arguments):
        raise ConfigurationError(
            f"{network.field}.inputs: the script takes {found}, found "
            f"{[spec.name for spec in network.inputs]} in model.json"
        )
    taken = [argument.name for argument in arguments]
    names = [spec.name for spec in network.inputs]
    if any(name != own and name in taken for name, own in zip(names, taken, strict=False)):
        raise ConfigurationError(
            f"{network.field}.inputs: the script takes {taken}, in this order, found {names} in model.json"
        )
    kinds = [str(argument.type) for argument in arguments[: len(network.inputs)]]
    if not {*kinds} <= {*_SINGLE, _LISTED}:
        raise ConfigurationError(f"{network.field}.inputs: expected a script that takes tensors, found {found}")
    return [kind == _LISTED for kind in kinds]


def _named(answer: Any, names: Sequence[str]) -> dict[str, Any]:
    """A script's answer by name: its own where it has names, else the declared ones in their order."""
    match answer:
        case [dict(), [dict(found)]] | [dict(found)] | dict(found):
            return found  # torchvision's detectors give (losses, [one for each picture])
        case tuple() if set(names) <= set(getattr(answer, "_fields", ())):
            return dict(zip(answer._fields, answer, strict=True))  # type: ignore[attr-defined]
        case [*several]:
            return dict(zip(names, several, strict=False))
    return {names[0]: answer}


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    if not isinstance(value, torch.Tensor):
        raise ModelOutputMismatch(
            f"output {name!r}: expected a tensor, found {type(value).__name__}", output=name, found=type(value).__name__
        )
    if value.dtype is torch.bfloat16:  # which numpy does not know
        raise ModelOutputMismatch(f"output {name!r}: found bfloat16, which cannot be declared", output=name)
    array: npt.NDArray[Any] = value.cpu().numpy()
    return array


def _tells_of_memory(error: Exception) -> bool:
    message = str(error).lower()
    return any(words in message for words in _OUT_OF_MEMORY)


def kind_of(path: Path) -> str | None:
    """What a file is instead of TorchScript, if that can be told."""
    expected = "expected TorchScript, as torch.jit.save writes it"
    if not zipfile.is_zipfile(path):
        return f"it is no archive, or a damaged one; {expected}"
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        return None
    if "archive_format" in names or any(name.startswith("serialized_exported_program") for name in names):
        return f"it is of torch.export; {expected}"
    return f"it holds a pickled module or weights, as torch.save writes them; {expected}"


def _sentence(error: Exception, path: Path | None = None) -> str:
    """The line of PyTorch's message that tells most, without the file's place."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1].removeprefix("RuntimeError: ") if lines[0] == _IN_SCRIPT else lines[0]
    return (line.replace(str(path), path.name) if path else line)[:200]
