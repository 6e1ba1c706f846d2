"""ONNX Runtime inside this process, on the processor or on a CUDA device."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from shared.artifacts import CACHE, undeclared_data, verified
from shared.backends.arena import Arena
from shared.backends.declared import Found, check_declared, check_outputs
from shared.errors import ConfigurationError, OutOfMemory, WrongAnswer
from shared.host import cores, cpu_fingerprint

if TYPE_CHECKING:
    from shared.call import Call
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Tensors

Provider: TypeAlias = tuple[str, dict[str, str]]
"""An execution provider of ONNX Runtime and its options."""

_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
ERRORS = (
    native.EPFail, native.EngineError, native.Fail, native.InvalidArgument, native.InvalidGraph, native.InvalidProtobuf,
    native.NoModel, native.NoSuchFile, native.NotImplemented, native.RuntimeException, RuntimeError, ValueError,
)  # fmt: skip
_ONLY_ERRORS = 3
_OUT_OF_MEMORY = ("allocat", "alloc_failed", "out of memory")
_LARGE_ELEMENTS = 2_000_000  # MobileSAM's encoder has 3.1 million and takes 0.3 GB; a YOLO of 640 x 640 has 1.2
_PROCESSOR, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_CUDA_OPTIONS = {
    "use_tf32": "0",  # convolutions of 10 bits' precision would give other scores than every other backend does
    "cudnn_conv_algo_search": "HEURISTIC",  # trying them all takes seconds, for each size of picture anew
    "arena_extend_strategy": "kSameAsRequested",  # powers of two would take up to twice the memory
}
_log = logging.getLogger("thinlens")


class OnnxBackend:
    """A Backend (see shared.backends)."""

    def __init__(self, settings: Settings) -> None:
        self._threads = settings.threads or cores()
        self._device = settings.device
        self._providers = _providers(settings.device)

    def open(self, network: NetworkSpec) -> OnnxRun:
        """The network's session, on the processor from the graph that an earlier start has optimised for it, if any."""
        path, artifact = verified(network, "onnx")
        _check_optimised_for(self._device, network)
        name = f"{artifact.sha256[:16]}-ort{ort.__version__}-{cpu_fingerprint()}.onnx"
        # A kept graph would go on with weights that have changed beside it, or look for them in the wrong folder; one
        # that was optimised for a GPU has kernels of that GPU. What was optimised when it was staged mostly lies on a
        # disk that forgets, a container's, where keeping what is still done would cost every start more than it spares.
        kept = self._device == "cpu" and not (artifact.data or artifact.optimised)
        ready = network.folder / CACHE / name if kept else None
        session = (ready and self._optimised(ready, network)) or self._opening(path, ready, network)
        self._check_device(session)
        _check(session, network)
        return OnnxRun(session, network, path)

    def _optimised(self, ready: Path, network: NetworkSpec) -> ort.InferenceSession | None:
        if not ready.exists():
            return None
        options = self._options(network)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return _session(ready, options)
        except ERRORS:
            _log.warning("the optimised graph in the bundle's cache cannot be read; it is made anew")
            return None

    def _opening(self, path: Path, ready: Path | None, network: NetworkSpec) -> ort.InferenceSession:
        """The session from the file as it was exported; with `ready`, its optimised graph is left there."""
        _check_data(path, network)
        try:
            kept = ready and self._saving(path, ready, network)
            return kept or _session(path, self._options(network), self._providers)
        except ERRORS as error:
            by = network.artifacts["onnx"].optimised
            anew = f"; it was optimised by {by}: have this version do that anew" if by else ""
            why = f"ONNX Runtime {ort.__version__} cannot open {path.name!r}: {sentence(error, path)}"
            raise ConfigurationError(f"{network.field}: {why}{anew}") from error

    def _saving(self, path: Path, ready: Path, network: NetworkSpec) -> ort.InferenceSession | None:
        """The session, its optimised graph left at `ready`; None where that cannot be written or the model not read."""
        if not _writable(ready.parent):
            return None
        options = self._options(network)
        part = ready.with_name(f"{ready.stem}-{uuid4().hex}.part")
        options.optimized_model_filepath = str(part)
        try:
            session = _session(path, options)
            part.replace(ready)
        except (*ERRORS, OSError) as error:
            _log.info("the optimised graph cannot be kept (%s); the next start optimises again", type(error).__name__)
            return None
        finally:
            part.unlink(missing_ok=True)
        return session

    def _check_device(self, session: ort.InferenceSession) -> None:
        """Raises ConfigurationError where ONNX Runtime has quietly put up with less than it was asked for."""
        found = session.get_providers()
        if missing := [name for name, _ in self._providers if name not in found]:
            raise ConfigurationError(
                f"THINLENS_DEVICE: {self._device!r} cannot be used: ONNX Runtime {ort.__version__} opens the model "
                f"without {missing[0]}, with {found}; see that the driver, CUDA, cuDNN and that device are there"
            )

    def _options(self, network: NetworkSpec) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = _ONLY_ERRORS
        # Idle threads would burn the processor between requests, which a serverless host bills and other calls need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # What an arena has once had it keeps, twice over where it also plans one block for a whole run.
        options.enable_cpu_mem_arena = not _is_large(network)
        options.enable_mem_pattern = not _is_free(network)
        return options


class OnnxRun:
    """A Run (see shared.backends): one session, which ONNX Runtime lets many threads use at once."""

    def __init__(self, session: ort.InferenceSession, network: NetworkSpec, path: Path) -> None:
        self._session: ort.InferenceSession | None = session
        self._path = path
        self._name = network.field
        self._network = network
        self._outputs = [spec.name for spec in network.outputs]
        self._arena = Arena(session, network) if _is_free(network) else None

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        call.check()
        session = self._session
        assert session is not None, "called after close"
        try:
            outputs = session.run(self._outputs, dict(inputs))
        except MemoryError as error:
            raise OutOfMemory("there is not enough memory to run the model on this picture") from error
        except ERRORS as error:
            if any(words in str(error).lower() for words in _OUT_OF_MEMORY):
                raise OutOfMemory("there is not enough memory to run the model on this picture") from error
            fields = {"request_id": call.request_id}
            _log.warning("%s failed: %s", self._name, sentence(error, self._path), extra={"fields": fields})
            raise WrongAnswer("the model failed on this picture; the log tells more under the request id") from error
        finally:
            if self._arena is not None:
                self._arena.used()
        return check_outputs(self._network, dict(zip(self._outputs, outputs, strict=True)))

    def ready(self) -> bool:
        return self._session is not None

    def close(self) -> None:
        self._session = self._arena = None


def _is_free(network: NetworkSpec) -> bool:
    """Whether runs differ in size."""
    return any(axis is None for spec in network.inputs for axis in spec.shape)


def _is_large(network: NetworkSpec) -> bool:
    """Whether a run, always of one size, takes so much that asking the system for it anew each time costs nothing worth
    mentioning beside the run itself."""
    elements = sum(math.prod(axis or 1 for axis in spec.shape) for spec in network.inputs)
    return not _is_free(network) and elements >= _LARGE_ELEMENTS


def _providers(device: str) -> list[Provider]:
    """What runs a graph on `device`, the first that can run a node taking it. Raises ConfigurationError.

    TensorRT's provider is left out even where it is installed: it spends minutes building engines at the first call and
    for each new size, which no caller of a function waits for. A model server does that once and before it is asked.
    """
    if device == "cpu":
        return [(_PROCESSOR, {})]
    found = ort.get_available_providers()
    if _CUDA not in found:
        raise ConfigurationError(
            f"THINLENS_DEVICE: {device!r} needs ONNX Runtime with {_CUDA}; ONNX Runtime {ort.__version__} has "
            f"{found}: pip install onnxruntime-gpu in the place of onnxruntime"
        )
    ort.preload_dlls()  # CUDA's libraries, where pip has put them
    return [(_CUDA, {"device_id": device.partition(":")[2] or "0"} | _CUDA_OPTIONS), (_PROCESSOR, {})]


def _session(
    path: Path, options: ort.SessionOptions, providers: Sequence[Provider] = ((_PROCESSOR, {}),)
) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), options, providers=list(providers))


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def sentence(error: Exception, path: Path) -> str:
    """The first line of ONNX Runtime's message, without its code and without the file's place."""
    line = str(error).splitlines()[0].rpartition(" : ")[2]
    return line.replace(str(path), path.name)[:200]


def _check_optimised_for(device: str, network: NetworkSpec) -> None:
    """Raises ConfigurationError where a GPU would be given kernels that were fused for processors, which it has not."""
    if (by := network.artifacts["onnx"].optimised) and device != "cpu":
        raise ConfigurationError(
            f"THINLENS_DEVICE: {device!r} cannot be used: {network.field} was optimised for processors ({by}); stage "
            "the bundle without --optimise"
        )


def _check_data(path: Path, network: NetworkSpec) -> None:
    """Raises ConfigurationError where the graph has weights in a file that model.json does not name."""
    if missing := undeclared_data(network.folder, network.artifacts["onnx"]):
        raise ConfigurationError(
            f"{network.field}.artifacts.onnx.data: {path.name!r} has weights in "
            f"{missing[0]!r}; name each such file with its sha256, or save the model as one file"
        )


def _check(session: ort.InferenceSession, network: NetworkSpec) -> None:
    check_declared(network, _found(session.get_inputs()), _found(session.get_outputs()), "in the graph")


def _found(tensors: Sequence[ort.NodeArg]) -> list[Found]:
    return [
        Found(
            tensor.name,
            _DTYPES.get(tensor.type, tensor.type),
            tuple(axis if isinstance(axis, int) else None for axis in tensor.shape),
        )
        for tensor in tensors
    ]
