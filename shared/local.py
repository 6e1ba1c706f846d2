"""Predictions made in this process: decode, plan, task; the networks run here, or are asked of a model server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

from shared import parameters, tasks
from shared.call import Call
from shared.predictor import Drawn, Opened, PictureFormat

if TYPE_CHECKING:
    from shared.backends import Backend, Run
    from shared.manifest import Bundle
    from shared.tasks import Task

_LONGEST_WARM_UP_S = 3600.0  # nobody waits for it, and what takes long to load is not broken


class LocalPredictor:
    """A Predictor (see shared.predictor). Its family is loaded when it is first asked about parameters, its networks
    are opened by `open`."""

    def __init__(
        self, bundle: Bundle, connect: Callable[[], Backend], *, max_pixels: int, score_threshold: float | None = None
    ) -> None:
        self._bundle = bundle
        self._connect = connect
        self._max_pixels = max_pixels
        self._score_threshold = score_threshold
        self._lock = Lock()
        self._task: Task | None = None
        self._runs: Mapping[str, Run] = {}

    def parameters(self) -> dict[str, object]:
        return parameters.schema(self._defaults())

    def parse(self, given: Mapping[str, object]) -> Any:
        return parameters.parse(self._defaults(), given)

    def open(self, *, warm_up: bool) -> None:
        task, backend = self._planned(), self._connect()
        runs = {name: backend.open(self._bundle.network(name)) for name in self._bundle.model.networks}
        if warm_up:
            _try_out(task, runs)
        self._runs = runs

    def ready(self) -> bool:
        return all(run.ready() for run in self._runs.values())

    def predict(self, source: bytes, params: Any, call: Call, picture: PictureFormat | None, opened: Opened) -> Drawn:
        # Pictures bring numpy and Pillow, which a process that only reports or forwards does without.
        from shared.images import Picture

        task = self._planned()
        with call.stage("decode"):
            encoded = Picture(source, self._max_pixels)
            image = encoded.decode(task.plan(encoded.header, params).decode_hw)
        opened(call)
        prediction = task.predict(image, params, self._runs, call)
        if picture is None:
            return Drawn(prediction)
        from shared import render

        with call.stage("draw"):
            return Drawn(prediction, render.drawn(source, prediction, picture, self._max_pixels))

    def _defaults(self) -> msgspec.Struct:
        """The parameters of a request that gives none: the model's own under this process's settings."""
        defaults: msgspec.Struct = self._planned().defaults
        if self._score_threshold is not None and hasattr(defaults, "score_threshold"):
            return msgspec.structs.replace(defaults, score_threshold=self._score_threshold)
        return defaults

    def _planned(self) -> Task:
        """The bundle's task, made when first asked for: a family brings numpy and Pillow."""
        task = self._task
        if task is None:
            with self._lock:
                task = self._task = self._task or tasks.build(self._bundle)
        return task


def _try_out(task: Task, runs: Mapping[str, Run]) -> None:
    import numpy as np

    from shared.images import Image

    grey = Image(np.full((64, 64, 3), 128, np.uint8), (64, 64))
    task.predict(grey, task.defaults, runs, Call("warm-up", _LONGEST_WARM_UP_S))
