"""The models of one process: found once, opened on first use, answered by what the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import msgspec

from shared import backends
from shared.admission import Admission
from shared.bounds import bounds
from shared.call import Call
from shared.embeddings import Memo
from shared.errors import (
    SERVER_FAILURES,
    ConfigurationError,
    DeadlineExceeded,
    Failure,
    ModelBroken,
    ModelNotFound,
    ModelOutputMismatch,
    Unavailable,
)
from shared.host import spare_addresses
from shared.local import LocalPredictor
from shared.manifest import MANIFEST, Bundle
from shared.memory import Memory
from shared.predictions import Prediction
from shared.predictor import PictureFormat, Predictor
from shared.served import EMBEDDED_PATIENCE, Patience, ServedModel, State
from shared.settings import Settings
from shared.validation import suggest

_BUNDLED = "coco-ssd-mobilenet-v2"  # stays the default when others are fetched beside it
_SERVER_TRY_AGAIN_S = 2  # a model server's repository is mended without a restart here
_SERVERS_SHARE = 0.5  # of a request's time: what is left must be enough for the backend that stands in
_COVERED = (*SERVER_FAILURES, Unavailable, ModelOutputMismatch)


class Answer(msgspec.Struct, frozen=True):
    """A prediction; whether it had to wait for the model to be loaded; the backend that gave it; the failure of the
    model server that another backend has stood in for; the encoded picture where one was asked for."""

    prediction: Prediction[Any]
    cold: bool
    backend: str
    instead_of: Failure | None = None
    picture: bytes = b""


class Standing(NamedTuple):
    """How the models that must answer stand: the worst state, why, and the backend that would answer."""

    state: State
    reason: str | None
    backend: str


class Service:
    """The models of one process. Cheap to build: nothing heavy is imported or opened before it is used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.admission = Admission(settings.slots)
        self.memo = Memo(settings.embedding_cache_bytes, _folder(settings.embeddings))
        spare_addresses()
        self.memory = Memory(bounds(settings.memory_limit_mb), self._promised_bytes)
        self._backends: dict[str, backends.Backend] = {}
        self._lock = Lock()
        self.models: dict[str, ServedModel] = {}
        self._stand_ins: dict[str, ServedModel] = {}
        for folder in _bundle_folders(Path(settings.models)):
            served = self._served(folder)
            if served.name in self.models:
                raise ConfigurationError(f"THINLENS_MODELS: two bundles are named {served.name!r}")
            self.models[served.name] = served
            if settings.fallback is not None:
                make = partial(self._local, backend=settings.fallback)
                self._stand_ins[served.name] = ServedModel(folder, settings.fallback, make)
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

    def check(self, served: ServedModel, given: Mapping[str, object], call: Call) -> None:
        """Raises BadRequest for parameters that cannot be, before a picture is fetched in vain; and ModelBroken."""
        try:
            served.parse(given, call)
        except _COVERED:
            if served.name not in self._stand_ins:
                raise
            self._stand_ins[served.name].parse(given, call)

    def predict(
        self,
        served: ServedModel,
        source: bytes,
        given: Mapping[str, object],
        call: Call,
        picture: PictureFormat | None = None,
    ) -> Answer:
        """The prediction for one encoded picture under the parameters `given`. Raises Failure."""
        with self.admission.slot(call):
            stand_in = self._stand_ins.get(served.name)
            if stand_in is None:
                return _answer(served, source, given, call, picture)
            try:
                if served.asleep or (served.state != "ready" and stand_in.state == "ready"):
                    served.open_beside()
                    raise served.silence()
                return _early_answer(served, source, given, call, picture)
            except (*_COVERED, DeadlineExceeded) as failure:
                try:
                    answer = _answer(stand_in, source, given, call, picture)
                except ModelBroken:  # the log tells why; it is not what this caller has met first
                    raise failure from None
                return msgspec.structs.replace(answer, instead_of=failure)

    def standing(self) -> Standing:
        """How the models that must answer stand. Starts the loading of cold ones, and asks model servers."""
        needed = [self.default] if self.default is not None else list(self.models)
        found: list[Standing] = []
        for name in needed:  # a server that is silent is waited for once
            found.append(self._standing(name, probe=all(one.state == "ready" for one in found)))
        for worst in ("broken", "warming", "cold"):
            for standing in found:
                if standing.state == worst:
                    return standing
        # Of several, the one that has something to say.
        standing = next((one for one in found if one.reason), found[0])
        return standing._replace(state="at_capacity") if self.admission.full else standing

    def _standing(self, name: str, *, probe: bool) -> Standing:
        served, stand_in = self.models[name], self._stand_ins.get(name)
        if probe:
            served.refresh()
        standing = Standing(served.state, served.reason, served.backend)
        served.open_beside(warm_up=True)
        if stand_in is None or standing.state in ("ready", "cold"):
            return standing
        stand_in.open_beside(warm_up=True)
        if stand_in.state == "ready":
            return Standing("ready", served.reason, stand_in.backend)
        if stand_in.state == "broken":
            return standing._replace(reason=f"{served.reason}; nor can {stand_in.backend} stand in: {stand_in.reason}")
        return standing

    def _served(self, folder: Path) -> ServedModel:
        settings = self.settings
        make = self._remote if settings.forward == "encoded" else partial(self._local, backend=settings.backend)
        wake_s = 0.0 if settings.fallback else settings.wake_s
        patience = Patience(wake_s, _SERVER_TRY_AGAIN_S) if settings.external else EMBEDDED_PATIENCE
        return ServedModel(folder, settings.backend, make, patience)

    def _local(self, bundle: Bundle, backend: str) -> Predictor:
        settings = self.settings
        return LocalPredictor(
            bundle,
            partial(self._connect, backend),
            backend=backend,
            max_pixels=settings.max_pixels,
            usual=settings.usual,
            memory=self.memory,
            memo=self.memo,
        )

    def _remote(self, bundle: Bundle) -> Predictor:
        from shared.remote import RemotePredictor

        return RemotePredictor(bundle, self.settings)

    def _connect(self, backend: str) -> backends.Backend:
        with self._lock:
            if backend not in self._backends:
                connected = backends.connect(backend, self.settings)
                self._backends[backend] = backends.Shared(connected) if backend in backends.EMBEDDED else connected
            return self._backends[backend]

    def _promised_bytes(self) -> int:
        """What embeddings will take once as many are kept as may be; nothing before the first one is."""
        kept = self.memo.kept_bytes
        return self.settings.embedding_cache_bytes - kept if kept else 0

    def _default_name(self) -> str | None:
        wanted, names = self.settings.model, list(self.models)
        if wanted is not None and wanted not in self.models:
            raise ConfigurationError(
                f"THINLENS_MODEL: there is no {wanted!r} in THINLENS_MODELS; {suggest(wanted, names)}"
            )
        if wanted is None and len(names) > 1:
            return _BUNDLED if _BUNDLED in names else None
        return wanted or names[0]


def _folder(name: str | None) -> Path | None:
    return Path(name) if name else None


def _answer(
    served: ServedModel, source: bytes, given: Mapping[str, object], call: Call, picture: PictureFormat | None
) -> Answer:
    cold = served.state != "ready"
    drawn = served.predict(source, served.parse(given, call), call, picture)
    return Answer(drawn.prediction, cold, served.backend, picture=drawn.picture)


def _early_answer(
    served: ServedModel, source: bytes, given: Mapping[str, object], call: Call, picture: PictureFormat | None
) -> Answer:
    """The answer, or a failure while there is time for another way to it."""
    part = Call(call.request_id, round(call.remaining_s * _SERVERS_SHARE, 1))
    part.share = call.share
    try:
        return _answer(served, source, given, part, picture)
    finally:
        for stage, stage_ms in part.stages_ms.items():
            call.stages_ms[stage] = call.stages_ms.get(stage, 0.0) + stage_ms


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
