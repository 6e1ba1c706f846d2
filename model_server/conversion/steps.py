"""What the steps of a conversion share: the wishes, the bundle as it stands, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from model_server.comparison.agreement import EXACT, Tolerance
from model_server.conversion.fidelity import Side
from model_server.conversion.redeclare import Declared
from model_server.export import REQUIREMENTS, TORCH_REQUIREMENTS
from model_server.failures import Stopped
from model_server.silence import silence
from shared import backends, tasks
from shared.errors import ConfigurationError
from shared.manifest import Bundle, NetworkSpec, Preprocess
from shared.settings import Settings
from shared.tasks.companions import told_apart
from shared.tensors import TensorSpec

if TYPE_CHECKING:
    from shared.backends import Run

HALF, LOSSY = Tolerance(0.01, 2.0), Tolerance(1.0, 1e9, matched=0.8)
"""What a conversion may cost, beside EXACT for one that keeps float32: with float16; INT8 or a size that the source
never had."""

_REQUIREMENTS = {
    "model_server.export.torch_models": f"-r {TORCH_REQUIREMENTS}",
    "model_server.export.onnx_torch": f"-r {TORCH_REQUIREMENTS}",
    "model_server.export.tensorflow_models": f"-r {REQUIREMENTS}",
    "model_server.export.onnx_graphs": "-r requirements.txt onnx",
    "model_server.export.int8": "-r requirements.txt onnx",
    "torchscript": f"-r {TORCH_REQUIREMENTS}",
    "tensorflow": f"-r {REQUIREMENTS}",
}
"""What pip installs for an exporter, and for a backend where exporting needs more than serving."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    to: str
    name: str | None = None
    module: str | None = None
    origin: str | None = None
    network: str | None = None
    fold: bool = False
    layout: str | None = None
    colour: str | None = None
    free_size: bool = False
    size: tuple[int, int] | None = None
    precision: Literal["half", "half-weights", "int8"] | None = None
    calibration: Path | None = None
    pictures: Path | None = None
    tolerance_score: float | None = None
    tolerance_px: float | None = None
    keep_anyway: bool = False
    replace: bool = False

    @property
    def tolerance(self) -> Tolerance:
        return {None: EXACT, "half": HALF, "half-weights": HALF, "int8": LOSSY}[self.precision]


@dataclass(frozen=True)
class Making:
    """A conversion under way: the network, and the bundle as it stands; `declared` is its model.json."""

    wishes: Wishes
    network: str
    bundle: Bundle
    declared: Declared
    pictures: Sequence[Path]

    @property
    def spec(self) -> NetworkSpec:
        return self.bundle.network(self.network)

    @property
    def picture(self) -> TensorSpec:
        return told_apart(self.spec.inputs, f"networks.{self.network}.inputs")[0]

    @property
    def preprocess(self) -> Preprocess:
        return self.bundle.model.preprocess


class Made(msgspec.Struct, frozen=True):
    """What a step has put into its folder: the file to run, how it was made, and model.json's new values but for it."""

    file: str
    how: str
    declared: Declared


Step = Callable[[Making, Path], Made]
"""Takes the bundle as it stands and an empty folder, and writes the new file into that."""


@dataclass(frozen=True)
class Origin:
    """What the network is converted from: its kind, its file where it has one, the module, and how to ask it."""

    kind: str
    name: str
    run: Run
    backend: str | None = None
    path: Path | None = None
    module: Any = None


def opened(spec: NetworkSpec, backend: str) -> Run:
    return framework(backend).open(spec)


def framework(backend: str) -> backends.Backend:
    """Raises Stopped where it is not installed."""
    try:
        with silence():
            return backends.connect(backend, Settings())
    except ConfigurationError as error:
        missing = error.__cause__
        if not isinstance(missing, ImportError):
            raise
        packages = _REQUIREMENTS.get(backend, backends.EMBEDDED[backend][1])
        raise Stopped(f"this conversion needs {missing.name}: pip install {packages}") from error


def side(bundle: Bundle) -> Side:
    """The bundle as it answers, each network by the first backend that it has a file for."""
    specs = {name: bundle.network(name) for name in bundle.model.networks}
    return Side(tasks.build(bundle), {name: opened(spec, next(iter(spec.artifacts))) for name, spec in specs.items()})


def exporter(module: str) -> Any:
    """An exporter's module. Raises Stopped where what it needs is not installed."""
    try:
        with silence():
            return import_module(module)
    except ImportError as error:
        raise Stopped(f"this conversion needs {error.name}: pip install {_REQUIREMENTS[module]}") from error
