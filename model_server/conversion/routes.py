"""From what to what a network can be converted, and how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from model_server.conversion import redeclare
from model_server.conversion.fidelity import Side, ask
from model_server.conversion.graph_steps import shapes
from model_server.conversion.steps import Made, Making, Origin, exporter, opened
from model_server.failures import Stopped
from shared import tasks
from shared.artifacts import SAVED_MODEL, verified

if TYPE_CHECKING:
    from model_server.conversion.steps import Wishes
    from shared.backends import Run
    from shared.manifest import NetworkSpec

Route = Callable[[Making, Origin, Path], Made]
_TORCH = "model_server.export.torch_models"


def find_origin(making: Making) -> Origin:
    """What to start from: the module that was named, else the artifact from which the target can be made."""
    wishes, spec = making.wishes, making.spec
    if wishes.module:
        if ("module", wishes.to) not in ROUTES:
            raise _no_route(spec, wishes)
        torch_models = exporter(_TORCH)
        module = torch_models.load_module(wishes.module)
        return Origin("module", wishes.module, torch_models.ModuleRun(module, spec), module=module)
    kinds = {kind: backend for kind, backend in _kinds(spec).items() if (kind, wishes.to) in ROUTES}
    wanted = wishes.origin or (wishes.to if wishes.to in kinds else next(iter(kinds), None))
    if wanted not in kinds:
        raise _no_route(spec, wishes)
    path, artifact = verified(spec, kinds[wanted])
    return Origin(wanted, artifact.source or path.name, opened(spec, kinds[wanted]), kinds[wanted], path)


def _no_route(spec: NetworkSpec, wishes: Wishes) -> Stopped:
    known = f"--to {wishes.to} is made from {', '.join(sorted(kind for kind, to in ROUTES if to == wishes.to))}"
    if wishes.module:
        return Stopped(f"{known}, not from a --module")
    has = sorted(_kinds(spec))
    if wishes.to in has and wishes.origin in (None, wishes.to):
        return Stopped(f"the bundle has its {wishes.to} already")
    return Stopped(f"{known.replace('module', '--module')}; the bundle has {', '.join(has) or 'none'}")


def _kinds(spec: NetworkSpec) -> dict[str, str]:
    """The kinds of artifact that the network has, each with its backend."""
    kinds = {}
    for backend, artifact in spec.artifacts.items():
        tensorflow = "saved-model" if Path(artifact.file).name == SAVED_MODEL else "frozen"
        kinds[tensorflow if backend == "tensorflow" else backend] = backend
    return kinds


def _inputs(making: Making, run: Run) -> Any:
    """What the service gives the network for the first picture."""
    fed = Side(tasks.build(making.bundle), {making.network: run})
    return ask(fed, making.network, making.pictures[0])[1][0].inputs


def _to_torchscript(making: Making, origin: Origin, folder: Path) -> Made:
    torch_models = exporter(_TORCH)
    inputs = _inputs(making, origin.run)
    module, spec, declared = _torch_module(torch_models, origin), making.spec, making.declared
    if making.wishes.fold:
        module, inputs = _folded_module(making, torch_models, module, inputs)
        preprocess = making.preprocess
        declared = redeclare.folded(declared, making.network, making.picture.name, preprocess.layout, preprocess.colour)
    how = torch_models.to_torchscript(module, spec, inputs, folder / "model.pt")
    return Made("model.pt", how + ("; normalisation folded" if making.wishes.fold else ""), declared)


def _folded_module(making: Making, torch_models: Any, module: Any, inputs: Any) -> tuple[Any, Any]:
    if len(making.spec.inputs) != 1 or not making.preprocess.normalises:
        raise Stopped("--fold-normalisation to torchscript: expected one input, and a normalisation to fold")
    picture = making.picture
    module = torch_models.folded(module, making.preprocess, picture.dtype)
    return module, {picture.name: inputs[picture.name].astype("uint8")}


def _torch_module(torch_models: Any, origin: Origin) -> Any:
    """The origin as a PyTorch module."""
    if origin.module is not None:
        return origin.module
    if origin.kind == "torchscript":
        return torch_models.load_script(origin.path)
    try:
        return exporter("model_server.export.onnx_torch").read(origin.path)
    except ValueError as error:
        raise Stopped(str(error)) from error


def _torch_to_onnx(making: Making, origin: Origin, folder: Path) -> Made:
    torch_models = exporter(_TORCH)
    inputs = _inputs(making, origin.run)
    spec, declared = making.spec, making.declared
    if making.wishes.free_size and origin.kind == "module":  # the exporter fixes what is not said to be free
        free = shapes(making, None, None)
        declared = redeclare.reshaped(declared, making.network, "inputs", free)
        spec = _reshaped(spec, free)
    how = torch_models.to_onnx(_torch_module(torch_models, origin), spec, inputs, folder / "model.onnx")
    return Made("model.onnx", how, declared)


def _tensorflow(making: Making, origin: Origin, folder: Path) -> Made:
    models = exporter("model_server.export.tensorflow_models")
    assert origin.path is not None
    file, how = models.convert(making.wishes.to, origin.path, making.spec, folder)
    return Made(file, how, making.declared)


def _reshaped(spec: NetworkSpec, free: dict[str, list[int | None]]) -> NetworkSpec:
    inputs = [msgspec.structs.replace(one, shape=tuple(free.get(one.name, one.shape))) for one in spec.inputs]
    return msgspec.structs.replace(spec, inputs=tuple(inputs))


ROUTES: dict[tuple[str, str], Route | None] = {
    ("module", "onnx"): _torch_to_onnx,
    ("module", "torchscript"): _to_torchscript,
    ("torchscript", "onnx"): _torch_to_onnx,
    ("torchscript", "torchscript"): _to_torchscript,
    ("onnx", "torchscript"): _to_torchscript,
    ("onnx", "onnx"): None,
    ("saved-model", "onnx"): _tensorflow,
    ("saved-model", "frozen"): _tensorflow,
    ("saved-model", "litert"): _tensorflow,
    ("frozen", "onnx"): _tensorflow,
    ("frozen", "saved-model"): _tensorflow,
    ("frozen", "litert"): _tensorflow,
}
"""By kind of origin and target; None where the options alone make the difference."""
