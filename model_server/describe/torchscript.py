"""A TorchScript file, by PyTorch. It does not say what it takes and gives: the first is asked for, the second is found
by running it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from model_server.describe import labels
from model_server.describe.looked import Asked, Looked, Samples, chosen
from model_server.describe.script_outputs import outputs_of
from model_server.failures import Stopped
from shared.backends.torchscript import kind_of, load_script
from shared.tensors import TensorSpec

_INSTEAD = (
    "save torch.jit.trace or torch.jit.script of the module by torch.jit.save, or give a function that makes the "
    "module to `convert --module`"
)
_METADATA = "extra/config.txt"


def look(path: Path, asked: Asked, samples: Samples) -> Looked:
    """Runs the script on what `samples` has for the inputs that are asked for. Raises Stopped."""
    if asked.signature:
        raise Stopped("--signature is for a SavedModel: a script has none")
    module = _opened(path)
    arguments = module.forward.schema.arguments[1:]
    inputs, notes = _inputs(arguments, asked)
    fed = samples(inputs)
    outputs, more = outputs_of([_answer(module, arguments, inputs, arrays) for arrays in fed], asked.outputs)
    return Looked(
        inputs=inputs,
        outputs=chosen(outputs, asked.outputs),
        labels=_own_labels(path) if asked.labels is None else None,
        notes=[*notes, *more],
    )


def _opened(path: Path) -> Any:
    if kind := kind_of(path):
        raise Stopped(f"{path}: {kind}; {_INSTEAD}")
    try:
        return load_script(path, torch.device("cpu"))
    except Exception as error:  # as many ways as a file can be broken
        raise Stopped(f"{path}: PyTorch {torch.__version__} cannot open it: {_line(error)}") from error


def _inputs(arguments: Sequence[Any], asked: Asked) -> tuple[list[TensorSpec], list[str]]:
    """The inputs in the order in which the script takes them. Raises Stopped."""
    names = [argument.name for argument in arguments]
    takes = ", ".join(f"{argument.name}: {argument.type}" for argument in arguments)
    needed = sum(not argument.has_default_value() for argument in arguments)
    if not needed <= len(asked.inputs) <= len(arguments) or not asked.inputs:
        raise Stopped(
            f"--input: a script does not say dtypes and shapes; it takes ({takes}): "
            "give one for each, in this order, such as --input 'float32[1,3,640,640]'"
        )
    given = [one if one.name else msgspec.structs.replace(one, name=names[at]) for at, one in enumerate(asked.inputs)]
    if {one.name for one in given} == {*names[: len(given)]}:
        return sorted(given, key=lambda one: names.index(one.name)), []
    if any(one.name != own and one.name in names for one, own in zip(given, names, strict=False)):
        raise Stopped(f"--input: the script takes ({takes}): give them in this order, leaving none out between")
    return given, [f"the script takes ({takes}); the inputs go there in their order, under whatever names"]


def _answer(module: Any, arguments: Sequence[Any], inputs: Sequence[TensorSpec], arrays: Mapping[str, Any]) -> Any:
    listed = [str(argument.type).startswith("List") for argument in arguments]
    tensors = [torch.tensor(arrays[one.name]) for one in inputs]
    given = [[tensor] if each else tensor for tensor, each in zip(tensors, listed, strict=False)]
    try:
        with torch.inference_mode():
            return module(*given)
    except Exception as error:  # as many ways as a script can fail
        fed = ", ".join(f"{one.name}={one.dtype}{list(arrays[one.name].shape)}" for one in inputs)
        free = "; an axis that may not have any size has to be given" if _has_free(inputs) else ""
        raise Stopped(f"the script fails on {fed}: {_line(error)}{free}") from error


def _has_free(inputs: Sequence[TensorSpec]) -> bool:
    return any(None in one.shape for one in inputs)


def _own_labels(path: Path) -> dict[int, str] | None:
    """What Ultralytics' exporter leaves beside the script as JSON."""
    with zipfile.ZipFile(path) as archive:
        files = [name for name in archive.namelist() if name.endswith(_METADATA)]
        if not files:
            return None
        try:
            names = json.loads(archive.read(files[0])).get("names")
        except (ValueError, AttributeError) as error:
            raise Stopped(f"the metadata in the file cannot be read ({error}): give --labels") from error
    return labels.parsed(str(names)) if names else None


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1][:300] if "TorchScript interpreter" in lines[0] else lines[0][:300]
