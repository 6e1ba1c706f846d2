"""LiteRT inside this process: TensorFlow's small runtime, for `.tflite` files with a signature."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, LifoQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from shared.artifacts import verified
from shared.backends.declared import Found, check_declared, check_outputs
from shared.errors import ConfigurationError, DeadlineExceeded, OutOfMemory, WrongAnswer
from shared.host import cores

if TYPE_CHECKING:
    from shared.call import Call
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Tensors

_LEAST_AT_ONCE = 2
_ERRORS = (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_log = logging.getLogger("thinlens")


class LitertBackend:
    """A Backend (see shared.backends) on the processor."""

    def __init__(self, settings: Settings) -> None:
        if settings.device != "cpu":
            raise ConfigurationError(
                f"THINLENS_DEVICE: {settings.device!r} cannot be used: LiteRT runs on the processor"
            )
        self._threads = settings.threads or cores()

    def open(self, network: NetworkSpec) -> LitertRun:
        """The signature that the network's artifact names."""
        path, artifact = verified(network, "litert")
        _check_signature(_interpreter(path, self._threads, network), artifact.signature, network)

        def runner() -> Any:
            return _interpreter(path, self._threads, network).get_signature_runner(artifact.signature)

        first = runner()
        check_declared(network, found(first.get_input_details()), found(first.get_output_details()), "in the graph")
        return LitertRun(network, first, runner, max(_LEAST_AT_ONCE, cores() // self._threads))


class LitertRun:
    """A Run (see shared.backends). An interpreter answers one call at a time, so there are as many as calls at once, up
    to a number past which more of them, each with its own memory, would not be faster."""

    def __init__(self, network: NetworkSpec, first: Any, make: Callable[[], Any], at_once: int) -> None:
        self._network = network
        self._make = make
        self._ready = True
        self._idle: LifoQueue[Any] = LifoQueue()
        for runner in (*[None] * (at_once - 1), first):  # None: made once it is needed
            self._idle.put(runner)

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        call.check()
        assert self._ready, "called after close"
        with self._runner(call) as runner, _running(self._network, call):
            outputs = runner(**inputs)
        return check_outputs(self._network, outputs)

    def ready(self) -> bool:
        return self._ready

    def close(self) -> None:
        self._ready = False
        self._idle = LifoQueue()

    @contextmanager
    def _runner(self, call: Call) -> Iterator[Any]:
        """An idle runner for one call. One that failed is not used again: LiteRT may leave it half prepared."""
        idle = self._idle
        try:
            runner = idle.get(timeout=max(0.0, call.remaining_s))
        except Empty as error:
            raise DeadlineExceeded("the request's time was over before its turn came", limit=call.timeout_s) from error
        whole = None
        try:
            runner = runner or self._make()
            yield runner
            whole = runner
        finally:
            idle.put(whole)


def _interpreter(path: Path, threads: int, network: NetworkSpec) -> Any:
    try:
        return Interpreter(str(path), num_threads=threads)
    except _ERRORS as error:
        raise ConfigurationError(
            f"{network.field}: LiteRT cannot open {path.name!r}: {_sentence(error).replace(str(path), path.name)}"
        ) from error


def _check_signature(interpreter: Any, signature: str, network: NetworkSpec) -> None:
    known = sorted(interpreter.get_signature_list())
    if signature not in known:
        raise ConfigurationError(
            f"{network.field}.artifacts.litert.signature: there is no {signature!r} in the file, only {known}"
        )


@contextmanager
def _running(network: NetworkSpec, call: Call) -> Iterator[None]:
    try:
        yield
    except (*_ERRORS, MemoryError) as error:
        if isinstance(error, MemoryError) or "allocat" in str(error):
            raise OutOfMemory("there is not enough memory to run the model on this picture") from error
        fields = {"request_id": call.request_id}
        _log.warning("%s failed: %s", network.field, _sentence(error), extra={"fields": fields})
        raise WrongAnswer("the model failed on this picture; the log tells more under the request id") from error


def _sentence(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip()[:200]


def found(details: dict[str, Any]) -> list[Found]:
    """LiteRT's details of a signature's tensors; a free axis is -1 there."""
    return [
        Found(
            name,
            np.dtype(detail["dtype"]).name,
            tuple(None if axis < 0 else int(axis) for axis in detail["shape_signature"]),
        )
        for name, detail in details.items()
    ]
