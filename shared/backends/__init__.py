"""The seam between a task and what runs its networks, and the table of backends."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from shared.errors import ConfigurationError
from shared.host import return_large_buffers

if TYPE_CHECKING:
    from shared.call import Call
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Tensors

EMBEDDED = {
    "onnx": ("shared.backends.onnx:OnnxBackend", "-r requirements.txt"),
    "torchscript": ("shared.backends.torchscript:TorchScriptBackend", "-r requirements-torch.txt"),
    "tensorflow": ("shared.backends.tensorflow:TensorFlowBackend", "-r requirements-tf.txt"),
    "litert": ("shared.backends.litert:LitertBackend", "'ai-edge-litert>=2.3,<3'"),
}
"""Backends that run the model in this process: where each is, and what pip installs for it."""

EXTERNAL = {
    ("triton", "http"): ("shared.backends.triton:TritonBackend", "-r requirements.txt"),
    ("triton", "grpc"): ("shared.backends.triton_grpc:TritonGrpcBackend", "'tritonclient[grpc]'"),
    ("tfserving", "http"): ("shared.backends.tfserving:TfServingBackend", "-r requirements.txt"),
    ("tfserving", "grpc"): ("shared.backends.tfserving_grpc:TfServingGrpcBackend", "grpcio protobuf"),
}
"""Backends that ask a model server, by name and BACKEND_PROTOCOL."""


_PICTURE_BYTES = 4 << 20  # a tensor that is sent is smaller; what is larger is a picture
_LARGE_BYTES = {"torchscript": 32 << 20}
"""PyTorch takes a block for every tensor of every run. Fresh ones from the system each time cost it twice the time."""


class Run(Protocol):
    """One opened network. Safe to call from several threads."""

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        """Names -> arrays, as the network declares them. Raises WrongAnswer, OutOfMemory, DeadlineExceeded, and where a
        model server is asked ServerUnreachable, ServerBusy, ServerTimeout, ServerFailed."""

    def ready(self) -> bool:
        """Whether a call made now would be answered."""

    def close(self) -> None:
        """Gives back what the network holds."""


class Backend(Protocol):
    """What opens networks; one per process."""

    def open(self, network: NetworkSpec) -> Run:
        """Raises ConfigurationError where the file, or what the model server has, is missing, changed or not what
        model.json declares; ServerUnreachable, ServerBusy, ServerTimeout or ServerFailed where a model server does not
        tell. Opening an external network asks the server, and so is the way to find out whether it is back."""


class Shared:
    """A Backend that opens each network once, however many bundles are put together with it: for those whose networks
    are in this process and stay as they were opened."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = Lock()
        self._opened: dict[tuple[Path, str], Run] = {}

    def open(self, network: NetworkSpec) -> Run:
        key = (network.folder, network.network)
        with self._lock:
            if key not in self._opened or not self._opened[key].ready():
                self._opened[key] = self._backend.open(network)
            return self._opened[key]


def connect(name: str, settings: Settings) -> Backend:
    """The backend of that name, embedded or as external as the settings say. Raises ConfigurationError where its
    framework is not installed."""
    path, packages = EMBEDDED.get(name) or EXTERNAL[name, settings.backend_protocol]
    module, _, factory = path.partition(":")
    try:
        make: Callable[[Settings], Backend] = getattr(import_module(module), factory)
    except ImportError as error:
        raise ConfigurationError(
            f"THINLENS_BACKEND={name} needs {error.name}, which is not installed: pip install {packages}"
        ) from error
    return_large_buffers(_LARGE_BYTES.get(name, _PICTURE_BYTES))
    return make(settings)
