"""Predictions made in this process: decode, plan, task; the networks run here, or are asked of a model server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

from shared import encoded, needs, parameters, tasks
from shared.call import Call
from shared.embeddings import Memo
from shared.errors import NoImage
from shared.memory import Memory
from shared.parameters import Usual
from shared.predictor import Drawn, Opened, PictureFormat

if TYPE_CHECKING:
    from shared.backends import Backend, Run
    from shared.images import Decoding
    from shared.manifest import Bundle
    from shared.tasks import Plan, Task

_THE_MODELS_OWN = Usual()
_LONGEST_WARM_UP_S = 3600.0  # nobody waits for it, and what takes long to load is not broken


class LocalPredictor:
    """A Predictor (see shared.predictor). Its family is loaded when it is first asked about parameters, its networks
    are opened by `open`."""

    def __init__(
        self,
        bundle: Bundle,
        connect: Callable[[], Backend],
        *,
        max_pixels: int,
        backend: str = "onnx",
        usual: Usual = _THE_MODELS_OWN,
        memory: Memory | None = None,
        memo: Memo | None = None,
    ) -> None:
        self._bundle = needs.under(bundle, backend)
        self._backend = backend
        self._connect = connect
        self._max_pixels = max_pixels
        self._usual = usual
        self._memory = memory or Memory()
        self._memo = memo
        self._lock = Lock()
        self._task: Task | None = None
        self._runs: Mapping[str, Run] = {}

    def parameters(self) -> dict[str, object]:
        return parameters.schema(self._defaults())

    def parse(self, given: Mapping[str, object]) -> Any:
        return parameters.parse(self._defaults(), given)

    def open(self, *, warm_up: bool) -> None:
        task = self._planned()
        if not self._runs:
            stays = needs.resident_bytes(self._bundle, self._memory.opened) + needs.framework_bytes(self._backend)
            with self._memory.settled(self._opening_bytes(), stays):
                self._runs = self._opened()
            self._memory.opened.update(needs.folders(self._bundle))
        else:
            self._runs = self._opened()
        if warm_up:
            self._try_out(task)

    def _opened(self) -> dict[str, Run]:
        backend = self._connect()
        return {name: backend.open(self._bundle.network(name)) for name in self._bundle.network_names}

    def _try_out(self, task: Task) -> None:
        """One prediction on a small grey picture."""
        import numpy as np

        from shared.images import Decoding, Image

        grey = Decoding.of(Image(np.full((64, 64, 3), 128, np.uint8), (64, 64)))
        call = Call("warm-up", _LONGEST_WARM_UP_S)
        params = _with(task.defaults, {"points": ((32.0, 32.0),)})  # without a prompt, SAM looks for everything
        plan: Plan = task.plan(grey, params, self._memory.budget_bytes())
        with self._memory.reserved(plan.bytes_needed, call):
            task.predict(grey, plan, params, self._runs, call)

    def ready(self) -> bool:
        return all(run.ready() for run in self._runs.values())

    def predict(self, source: bytes, params: Any, call: Call, picture: PictureFormat | None, opened: Opened) -> Drawn:
        task = self._planned()
        if picture is not None:
            # What drawing takes, and nothing that it cannot show.
            params = _with(params, {"mask_format": "rle", "output_format": picture, "twin": False})
        decoding = self._decoding(source, params)
        if picture is not None and not source:
            raise NoImage("a drawn reply needs the picture itself beside its embedding")
        plan: Plan = task.plan(decoding, params, self._memory.budget_bytes(call))
        needed = max(plan.bytes_needed, needs.draw_bytes(decoding.header, picture) if picture else 0)
        if not self._memory.has_room(needed + self._opening_bytes()):
            opened(call)  # while this request holds little: opening needs what it would set aside
        with self._memory.reserved(needed, call) as reservation:
            if plan.pixels:
                decoding.decode(plan.decode_hw, call, alpha=plan.alpha)
            opened(call)
            prediction = task.predict(decoding, plan, params, self._runs, call)
            drawn = Drawn(prediction)
            if picture is not None:
                from shared import render

                with call.stage("draw"):
                    drawn = Drawn(prediction, render.drawn(source, prediction, picture, self._max_pixels, call.check))
            reservation.leaves_bytes = len(drawn.picture) or needs.reply_bytes(prediction)
            return drawn

    def _opening_bytes(self) -> int:
        """What opening the networks will take, nothing once they are open."""
        if self._runs:
            return 0
        return needs.opening_bytes(self._bundle, self._memory.opened) + needs.framework_bytes(self._backend)

    def _decoding(self, source: bytes, params: Any) -> Decoding:
        """The picture; or only its size, where what an encoder has made of it was sent in its place."""
        # Pictures bring numpy and Pillow, which a process that only reports or forwards does without.
        from shared.images import Decoding

        if source:
            return Decoding(source, self._max_pixels, self._memo)
        embedding = getattr(params, "embedding", None)
        if embedding is None:
            raise NoImage("the picture is empty")
        encoded.check_pixels(embedding.size, self._max_pixels)
        return Decoding.absent(embedding.size)

    def _defaults(self) -> msgspec.Struct:
        """The parameters of a request that gives none: the model's own under this process's settings."""
        given = {name: value for name, value in msgspec.structs.asdict(self._usual).items() if value is not None}
        defaults: msgspec.Struct = _with(self._planned().defaults, given)
        return defaults

    def _planned(self) -> Task:
        """The bundle's task, made when first asked for: a family brings numpy and Pillow."""
        task = self._task
        if task is None:
            with self._lock:
                task = self._task = self._task or tasks.build(self._bundle)
        return task


def _with(params: Any, values: Mapping[str, object]) -> Any:
    """`params` with those of `values` that it has a field for."""
    known = params.__struct_fields__
    return msgspec.structs.replace(params, **{name: value for name, value in values.items() if name in known})
