"""TensorFlow inside this process: a SavedModel, or a frozen GraphDef."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from shared.artifacts import SAVED_MODEL, verified
from shared.backends import graph_tensors
from shared.backends.declared import Found, check_declared, check_outputs
from shared.errors import ConfigurationError, OutOfMemory, WrongAnswer
from shared.host import cores

if TYPE_CHECKING:
    from shared.call import Call
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Artifact, Tensors


_BESIDE = ("variables", "assets")
_ERRORS = (
    tf.errors.OpError, AssertionError, AttributeError, DecodeError, LookupError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
_log = logging.getLogger("thinlens")


class TensorFlowBackend:
    """A Backend (see shared.backends) on the processor or a GPU."""

    def __init__(self, settings: Settings) -> None:
        tf.get_logger().setLevel(logging.ERROR)
        _choose_threads(settings.threads or cores())
        _choose_device(settings.device)

    def open(self, network: NetworkSpec) -> TensorFlowRun:
        """The network of a `saved_model.pb`'s signature; of any other file, of the frozen graph in it."""
        path, artifact = verified(network, "tensorflow")
        with _opening(network, path):
            opened = (
                _saved_model(path.parent, network, artifact)
                if path.name == SAVED_MODEL
                else _frozen_graph(path, network)
            )
        check_declared(network, opened.inputs, opened.outputs, "in the graph")
        return TensorFlowRun(opened, network)


class _Opened(msgspec.Struct, frozen=True):
    """What takes tensors by name and gives such; `holder` keeps the variables that it reads alive."""

    function: Callable[[dict[str, Any]], Mapping[str, Any]]
    inputs: Sequence[Found]
    outputs: Sequence[Found]
    holder: Any


class TensorFlowRun:
    """A Run (see shared.backends): one traced function, which many threads may call at once."""

    def __init__(self, opened: _Opened, network: NetworkSpec) -> None:
        self._opened: _Opened | None = opened
        self._network = network

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        call.check()
        opened = self._opened
        assert opened is not None, "called after close"
        with _running(self._network, call):
            found = opened.function({name: tf.convert_to_tensor(array) for name, array in inputs.items()})
            # A view where `numpy()` would copy; what a network gives is never written to.
            arrays = {spec.name: np.asarray(memoryview(found[spec.name])) for spec in self._network.outputs}
        return check_outputs(self._network, arrays)

    def ready(self) -> bool:
        return self._opened is not None

    def close(self) -> None:
        self._opened = None


def _choose_threads(threads: int) -> None:
    """TensorFlow takes its threads once in a process, before it does anything."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        kept = tf.config.threading.get_intra_op_parallelism_threads()
        _log.warning("TensorFlow has started with %s threads and cannot change to %d", kept or "all", threads)


def _choose_device(device: str) -> None:
    """Has TensorFlow see the one GPU that `device` names, or none. Raises ConfigurationError."""
    known = tf.config.list_physical_devices("GPU")
    name, _, number = device.partition(":")
    wanted = known[int(number or 0) :][:1] if name == "cuda" else []
    if name == "cuda" and not wanted:
        raise ConfigurationError(
            f"THINLENS_DEVICE: {device!r} cannot be used: TensorFlow {tf.__version__} finds {len(known)} CUDA devices; "
            "see that the driver and that device are there, and that this TensorFlow is built for CUDA"
        )
    try:
        tf.config.set_visible_devices(wanted, "GPU")
        for gpu in wanted:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise ConfigurationError(
            f"THINLENS_DEVICE: {device!r} cannot be used: TensorFlow has started on another device in this process"
        ) from error
    # TensorFloat-32 rounds what convolutions multiply to 10 bits: the answer would be another one than elsewhere.
    tf.config.experimental.enable_tensor_float_32_execution(False)


@contextmanager
def _opening(network: NetworkSpec, path: Path) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise ConfigurationError(
            f"{network.field}: TensorFlow {tf.__version__} cannot open {path.name!r}: {_sentence(error, path)}"
        ) from error


@contextmanager
def _running(network: NetworkSpec, call: Call) -> Iterator[None]:
    try:
        yield
    except (*_ERRORS, MemoryError) as error:
        if isinstance(error, tf.errors.ResourceExhaustedError | MemoryError) or "out of memory" in str(error).lower():
            raise OutOfMemory("there is not enough memory to run the model on this picture") from error
        fields = {"request_id": call.request_id}
        _log.warning("%s failed: %s", network.field, _sentence(error), extra={"fields": fields})
        raise WrongAnswer("the model failed on this picture; the log tells more under the request id") from error


def _sentence(error: Exception, path: Path | None = None) -> str:
    """The first line of TensorFlow's message that says something, without the file's place."""
    text = str(getattr(error, "message", None) or error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if path is None:
        return lines[0][:300]
    return lines[0].replace(str(path), path.name).replace(str(path.parent), path.parent.name)[:200]


def _saved_model(folder: Path, network: NetworkSpec, artifact: Artifact) -> _Opened:
    _check_beside(folder, network, artifact)
    loaded = tf.saved_model.load(str(folder))
    if artifact.signature not in loaded.signatures:
        raise ConfigurationError(
            f"{network.field}.artifacts.tensorflow.signature: there is no {artifact.signature!r} in the SavedModel, "
            f"only {sorted(loaded.signatures)}"
        )
    function = loaded.signatures[artifact.signature]
    inputs = function.structured_input_signature[1]
    found = graph_tensors.found(inputs), graph_tensors.found(function.structured_outputs)
    return _Opened(lambda tensors: function(**tensors), *found, loaded)


def _check_beside(folder: Path, network: NetworkSpec, artifact: Artifact) -> None:
    """Raises ConfigurationError where the SavedModel has weights or assets in a file that model.json does not name: its
    checksum would vouch for nothing."""
    declared = {network.folder / file.file for file in artifact.data}
    beside = [path for name in _BESIDE for path in sorted((folder / name).rglob("*")) if path.is_file()]
    missing = [path.relative_to(network.folder).as_posix() for path in beside if path not in declared]
    if missing:
        raise ConfigurationError(
            f"{network.field}.artifacts.tensorflow.data: the SavedModel has {missing[0]!r} beside it; name each such "
            "file with its sha256"
        )


def _frozen_graph(path: Path, network: NetworkSpec) -> _Opened:
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    graph = wrapped.graph
    inputs = graph_tensors.named(graph, [spec.name for spec in network.inputs])
    outputs = graph_tensors.named(graph, [spec.name for spec in network.outputs])
    whole = len(inputs) == len(network.inputs)
    others = graph_tensors.also_needed(inputs, outputs) if whole else graph_tensors.placeholders(graph)
    found = graph_tensors.found(inputs | others), graph_tensors.found(graph_tensors.ends(graph) | outputs)
    check_declared(network, *found, "in the graph")  # else there is nothing to cut out of it
    function = wrapped.prune(list(inputs.values()), outputs)
    return _Opened(lambda tensors: function(*[tensors[name] for name in inputs]), *found, wrapped)
