"""Task + backend + settings: the models of this process, each opened once, on first use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import Any, Literal, Protocol

import msgspec

from shared import backends, tasks
from shared.admission import Admission
from shared.backends import Run
from shared.call import Call
from shared.errors import ConfigurationError, Failure, ModelBroken, ModelNotFound, ModelOutputMismatch, Unavailable
from shared.host import return_large_buffers
from shared.manifest import MANIFEST, Bundle, Model, read_bundle
from shared.predictions import Prediction
from shared.settings import Settings
from shared.tasks import Task
from shared.validation import suggest

State = Literal["cold", "warming", "ready", "at_capacity", "broken"]
PictureFormat = Literal["png", "jpeg", "webp"]
_BUNDLED = "coco-ssd-mobilenet-v2"  # stays the default when others are fetched beside it
_TRY_AGAIN_S = 30
_WARMING_RETRY_S = 2
_LONGEST_WARM_UP_S = 3600.0  # nobody waits for it, and what takes long to load is not broken
_log = logging.getLogger("thinlens")


class Answer(msgspec.Struct, frozen=True):
    """A prediction; whether it had to wait for the model to be loaded; the encoded picture where one was asked for."""

    prediction: Prediction
    cold: bool
    picture: bytes = b""


class Predictor(Protocol):
    """What the web layer talks to: one model, whatever runs it."""

    def predict(self, source: bytes, params: Any, call: Call) -> Prediction:
        """The prediction for one encoded picture. Raises Failure."""


class LocalPredictor:
    """Decodes the picture and runs the task in this process; `runs` gives the opened networks, or waits for them."""

    def __init__(self, task: Task, runs: Callable[[Call], Mapping[str, Run]], max_pixels: int) -> None:
        self._task = task
        self._runs = runs
        self._max_pixels = max_pixels

    def predict(self, source: bytes, params: Any, call: Call) -> Prediction:
        # Pictures bring numpy and Pillow, which a process that only reports or forwards does without.
        from shared.images import Picture

        with call.stage("decode"):
            picture = Picture(source, self._max_pixels)
            image = picture.decode(self._task.plan(picture.header, params).decode_hw)
        return self._task.predict(image, params, self._runs(call), call)


class ServedModel:
    """One bundle and how it stands. The bundle is read at once; its networks are opened on first use."""

    def __init__(self, folder: Path, connect: Callable[[], backends.Backend], settings: Settings) -> None:
        self.name = folder.name
        self.backend = settings.backend
        self._connect = connect
        self._settings = settings
        self._lock = Lock()
        self._planning = Lock()
        self._runs: Mapping[str, Run] | None = None
        self._warming = False
        self._reason: str | None = None
        self._retry_at = 0.0
        self._bundle: Bundle | None = None
        self._task: Task | None = None
        try:
            self._bundle = read_bundle(folder)
            self.name = self._bundle.model.name
        except ConfigurationError as error:
            self._break(str(error))

    @property
    def model(self) -> Model:
        """What model.json says. Raises ModelBroken where it cannot be read."""
        return self._usable().model

    @property
    def defaults(self) -> msgspec.Struct:
        """The parameters of a request that gives none: the model's own under this process's settings."""
        defaults: msgspec.Struct = self._planned()[1].defaults
        if self._settings.score_threshold is not None and hasattr(defaults, "score_threshold"):
            return msgspec.structs.replace(defaults, score_threshold=self._settings.score_threshold)
        return defaults

    def prepare(self, call: Call) -> msgspec.Struct:
        """`defaults`; what making them takes on first use counts as loading."""
        if self._task is None:
            with call.stage("load"):
                self._planned()
        return self.defaults

    @property
    def state(self) -> State:
        if self._runs is not None:
            return "ready"
        if self._reason is not None:
            return "broken"
        return "warming" if self._warming else "cold"

    @property
    def reason(self) -> str | None:
        """Why the model is broken."""
        return self._reason

    @property
    def worth_opening(self) -> bool:
        """Whether nothing is under way, and nothing that failed a moment ago would fail again."""
        return self.state == "cold" or (self.state == "broken" and self._bundle is not None and not self._resting)

    def predictor(self) -> Predictor:
        """What answers for this model. Where it is not open yet, its opening begins now, beside the decoding of the
        picture that asks for it. Raises ModelBroken."""
        _, task = self._planned()
        if self._runs is None and not self._warming:
            Thread(target=self.open, name=f"open-{self.name}", daemon=True).start()
        return LocalPredictor(task, self.runs, self._settings.max_pixels)

    def runs(self, call: Call) -> Mapping[str, Run]:
        """The networks by name, opened. Raises ModelBroken, or Unavailable where that outlasts the call's time."""
        if self._runs is not None:
            return self._runs
        with call.stage("load"):
            if not self._lock.acquire(timeout=max(0.0, call.remaining_s)):
                raise Unavailable(f"model {self.name!r} is still being loaded", retry_after_s=_WARMING_RETRY_S)
            try:
                return self._open()
            finally:
                self._lock.release()

    def open(self, *, warm_up: bool = False) -> None:
        """Opens the networks; `warm_up` runs the task once on a grey picture, which shows outputs that do not fit the
        family and has the memory ready, so that what is wrong is known before a caller finds out."""
        with self._lock, suppress(Failure):  # the state tells
            self._open(warm_up=warm_up)

    @contextmanager
    def misfitting(self) -> Iterator[None]:
        """An output that does not fit the family shows that this model cannot answer: it is broken from then on."""
        try:
            yield
        except ModelOutputMismatch as error:
            with self._lock:
                self._runs = None
                self._break(error.message)
            raise

    def _open(self, *, warm_up: bool = False) -> Mapping[str, Run]:
        """Under the lock."""
        if self._runs is not None:
            return self._runs
        self._warming = True
        try:
            bundle, task = self._planned()
            return_large_buffers()
            with self._breaking():
                backend = self._connect()
                runs = {name: backend.open(bundle.network(name)) for name in bundle.model.networks}
                if warm_up:
                    _try_out(task, runs)
        finally:
            self._warming = False
        self._reason = None
        self._runs = runs
        return runs

    def _usable(self) -> Bundle:
        if self._bundle is None or (self._reason is not None and self._resting):
            raise self._broken()
        return self._bundle

    def _planned(self) -> tuple[Bundle, Task]:
        """The bundle and its task, made when first asked for: a family brings numpy and Pillow."""
        bundle = self._usable()
        task = self._task
        if task is None:
            with self._planning, self._breaking():
                task = self._task = self._task or tasks.build(bundle)
        return bundle, task

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """What goes wrong inside is why this model is broken; the other ones, and the process, live on."""
        try:
            yield
        except (ConfigurationError, Failure) as error:
            self._break(str(error))
            raise self._broken() from error
        except Exception as error:  # a family may be the user's own code, which may raise anything
            _log.exception("model %s failed while it was opened", self.name)
            self._break(f"{type(error).__name__} while it was opened; the log tells more")
            raise self._broken() from error

    @property
    def _resting(self) -> bool:
        return monotonic() < self._retry_at

    def _break(self, reason: str) -> None:
        self._reason = reason
        self._retry_at = monotonic() + _TRY_AGAIN_S
        _log.error("model %s is broken: %s", self.name, self._reason)

    def _broken(self) -> ModelBroken:
        return ModelBroken(
            f"model {self.name!r} cannot be used: {self._reason}", retry_after_s=_TRY_AGAIN_S, model=self.name
        )


class Service:
    """The models of one process. Cheap to build: nothing heavy is imported or opened before it is used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.admission = Admission(settings.slots)
        self._backend: backends.Backend | None = None
        self._lock = Lock()
        self.models: dict[str, ServedModel] = {}
        for folder in _bundle_folders(Path(settings.models)):
            served = ServedModel(folder, self._connect, settings)
            if served.name in self.models:
                raise ConfigurationError(f"THINLENS_MODELS: two bundles are named {served.name!r}")
            self.models[served.name] = served
        self.default = self._default_name()

    def find(self, name: str | None) -> ServedModel:
        """The model of that name, or the default one. Raises ModelNotFound."""
        known = list(self.models)
        if name is None:
            if self.default is None:
                raise ModelNotFound(f"there is no default model; name one of {', '.join(known)} in the path")
            return self.models[self.default]
        if name not in self.models:
            raise ModelNotFound(f"there is no model {name!r}; {suggest(name, known)}", model=name)
        return self.models[name]

    def predict(
        self, served: ServedModel, source: bytes, params: Any, call: Call, picture: PictureFormat | None = None
    ) -> Answer:
        """The prediction for one encoded picture, drawn on it too where `picture` says how. Raises Failure."""
        with self.admission.slot(call):
            cold = served.state != "ready"
            with served.misfitting():
                prediction = served.predictor().predict(source, params, call)
            if picture is None:
                return Answer(prediction, cold)
            from shared import render

            with call.stage("draw"):
                return Answer(prediction, cold, render.drawn(source, prediction, picture, self.settings.max_pixels))

    def state(self) -> tuple[State, str | None]:
        """How the models that must answer stand, and why where one is broken. Starts the loading of cold ones."""
        needed = [self.models[self.default]] if self.default is not None else list(self.models.values())
        states = [(served.state, served.reason) for served in needed]
        for served in needed:
            if served.worth_opening:
                Thread(target=served.open, kwargs={"warm_up": True}, name=f"open-{served.name}", daemon=True).start()
        for worst in ("broken", "warming", "cold"):
            for state, reason in states:
                if state == worst:
                    return state, reason
        return ("at_capacity", None) if self.admission.full else ("ready", None)

    def _connect(self) -> backends.Backend:
        with self._lock:
            if self._backend is None:
                self._backend = backends.connect(self.settings.backend, self.settings)
            return self._backend

    def _default_name(self) -> str | None:
        wanted, names = self.settings.model, list(self.models)
        if wanted is not None and wanted not in self.models:
            raise ConfigurationError(
                f"THINLENS_MODEL: there is no {wanted!r} in THINLENS_MODELS; {suggest(wanted, names)}"
            )
        if wanted is None and len(names) > 1:
            return _BUNDLED if _BUNDLED in names else None
        return wanted or names[0]


def _try_out(task: Task, runs: Mapping[str, Run]) -> None:
    import numpy as np

    from shared.images import Image

    grey = Image(np.full((64, 64, 3), 128, np.uint8), (64, 64))
    task.predict(grey, task.defaults, runs, Call("warm-up", _LONGEST_WARM_UP_S))


def _bundle_folders(root: Path) -> list[Path]:
    """The folders in `root` that hold a bundle, or `root` itself where it is one."""
    try:
        if (root / MANIFEST).is_file():
            return [root]
        folders = sorted(path.parent for path in root.glob(f"*/{MANIFEST}"))
    except OSError as error:
        raise ConfigurationError(f"THINLENS_MODELS: the folder cannot be read: {error.strerror}") from error
    if not folders:  # a reply may carry this, so it does not say where the folder lies
        raise ConfigurationError(f"THINLENS_MODELS: expected a folder of bundles, found no */{MANIFEST} in it")
    return folders
