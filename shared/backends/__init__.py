"""The seam between a task and what runs its networks, and the table of backends."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from shared.call import Call
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Tensors

BACKENDS = {
    "onnx": ("shared.backends.onnx:OnnxBackend", "requirements.txt"),
}


class Run(Protocol):
    """One opened network. Safe to call from several threads."""

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        """Names -> arrays, as the network declares them. Raises WrongAnswer, OutOfMemory, DeadlineExceeded."""

    def ready(self) -> bool:
        """Whether a call made now would be answered."""

    def close(self) -> None:
        """Gives back what the network holds."""


class Backend(Protocol):
    """What opens networks; one per process."""

    def open(self, network: NetworkSpec) -> Run:
        """Raises ConfigurationError where the file is missing, changed or not what model.json declares."""


def connect(name: str, settings: Settings) -> Backend:
    """The backend of that name. Raises ConfigurationError where its framework is not installed."""
    path, requirements = BACKENDS[name]
    module, _, factory = path.partition(":")
    try:
        make: Callable[[Settings], Backend] = getattr(import_module(module), factory)
    except ImportError as error:
        raise ConfigurationError(
            f"THINLENS_BACKEND={name} needs {error.name}, which is not installed: pip install -r {requirements}"
        ) from error
    return make(settings)
