"""ONNX Runtime's arena, given back to the system when its network rests.

An arena keeps what the largest run has taken, for runs of all other sizes too. Having each run give it back makes small
runs half as fast again; here that happens once, a moment after the last of them.
"""

from __future__ import annotations

import atexit
import logging
from threading import Lock, Timer
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

if TYPE_CHECKING:
    from shared.manifest import NetworkSpec
    from shared.tensors import Tensors, TensorSpec

_REST_S = 1.0
_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")  # onnxruntime_run_options_config_keys.h
_LEAST_SIDES = (1, 8, 32, 64)  # what a network of free size may take for its least
_REFUSED = (
    native.Fail, native.InvalidArgument, native.NotImplemented, native.RuntimeException, RuntimeError, ValueError,
)  # fmt: skip
_log = logging.getLogger("thinlens")

_SHRINKING = Lock()
# Python takes no leave of a daemon's thread: one that is inside ONNX Runtime when the process ends would abort it. So
# the end waits for a run under way, and has no other begin.
atexit.register(_SHRINKING.acquire)


class Arena:
    """Watches one session of a network of free size. Safe under threads."""

    def __init__(self, session: ort.InferenceSession, network: NetworkSpec) -> None:
        self._session = session
        self._network = network
        self._lock = Lock()
        self._used_at = 0.0
        self._watched = False
        self._sides = list(_LEAST_SIDES)

    def used(self) -> None:
        """A run has ended."""
        with self._lock:
            self._used_at = monotonic()
            if not self._watched:
                self._watch()

    def _watch(self) -> None:
        self._watched = True
        timer = Timer(_REST_S, self._look)
        timer.daemon = True
        timer.start()

    def _look(self) -> None:
        with self._lock:
            if monotonic() < self._used_at + _REST_S:
                self._watch()
                return
            self._watched = False
        with _SHRINKING:
            self._shrink()

    def _shrink(self) -> None:
        """The one way to tell the arena to is a run; the least that the network takes is found once."""
        options = ort.RunOptions()
        options.add_run_config_entry(*_SHRINK)
        while self._sides:
            try:
                self._session.run(None, _zeros(self._network.inputs, self._sides[0]), options)
                return
            except _REFUSED:
                self._sides.pop(0)
        _log.debug("%s keeps its arena: it takes no small picture", self._network.field)


def _zeros(inputs: tuple[TensorSpec, ...], side: int) -> Tensors:
    return {spec.name: np.zeros([side if axis is None else axis for axis in spec.shape], spec.dtype) for spec in inputs}
