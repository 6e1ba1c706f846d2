"""One served bundle and how it stands: opened on first use, broken by what cannot answer, asleep while its model server
does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import Any, Literal

import msgspec

from shared.call import Call
from shared.errors import (
    SERVER_FAILURES,
    BadRequest,
    ConfigurationError,
    Failure,
    ModelBroken,
    ModelOutputMismatch,
    ServerFailed,
    ServerUnreachable,
    Unavailable,
)
from shared.manifest import Bundle, Model, read_bundle
from shared.predictor import Drawn, PictureFormat, Predictor

State = Literal["cold", "warming", "ready", "at_capacity", "broken"]
_WARMING_RETRY_S = 2
_PROBE_EVERY_S = 0.5
_PROBE_HOLDS_S = 1.0
_LONGEST_WAKE_S = 600.0  # a GPU node that is made anew takes minutes; what has not come by then will not
_TOO_MANY_FAILURES = 5
_log = logging.getLogger("thinlens")


class Patience(msgspec.Struct, frozen=True):
    """How long a request waits for a model server that is asleep, and when what is broken is tried again."""

    wake_s: float
    try_again_s: int


EMBEDDED_PATIENCE = Patience(wake_s=0.0, try_again_s=30)


class ServedModel:
    """One bundle under the name that requests use. It is read at once; its predictor is opened on first use.

    A predictor that has shown that it cannot answer is broken and rests before it is tried again. One whose model
    server does not answer is asleep: it is opened anew, which asks the server, at most twice a second and only because
    a request or /ready wants it, and no other call reaches the server until that has worked. That is the circuit
    breaker. Opening has a thread of its own, however many requests wait for it: none waits past its own time.
    """

    def __init__(
        self, folder: Path, backend: str, make: Callable[[Bundle], Predictor], patience: Patience = EMBEDDED_PATIENCE
    ) -> None:
        self.name = folder.name
        self.backend = backend
        self._patience = patience
        self._changed = Condition()
        self._open = False
        self._openings = 0
        self._answered = False
        self._warming = False
        self._asked = False
        self._reason: str | None = None
        self._retry_at = 0.0
        self._asleep_since: float | None = None
        self._retry_after_s = _WARMING_RETRY_S
        self._wrong = False
        self._failures = 0
        self._probed_at = 0.0
        self._bundle: Bundle | None = None
        try:
            bundle = read_bundle(folder)
            self.name = bundle.model.name
            self._predictor = make(bundle)
            self._bundle = bundle
        except ConfigurationError as error:
            self._break(str(error))

    @property
    def model(self) -> Model:
        """What model.json says. Raises ModelBroken where it cannot be read."""
        if self._bundle is None:
            raise self._broken()
        return self._bundle.model

    @property
    def state(self) -> State:
        if self._open:
            return "ready" if self._answered or not self._warming else "warming"
        since = self._asleep_since
        if since is not None:
            return "broken" if self._wrong or monotonic() > since + _LONGEST_WAKE_S else "warming"
        if self._reason is not None:
            return "broken"
        return "warming" if self._warming else "cold"

    @property
    def reason(self) -> str | None:
        """Why the model is broken, or what its server did last."""
        return self._reason

    @property
    def asleep(self) -> bool:
        """Whether its model server was found not to answer."""
        return self._asleep_since is not None

    def silence(self) -> ServerUnreachable:
        """The failure of a request that finds the model server asleep."""
        return ServerUnreachable(
            self._reason or "the model server has not answered yet", retry_after_s=self._retry_after_s
        )

    def parameters(self) -> dict[str, object]:
        """JSON Schema of what a request may ask for. Raises Unavailable's kin, ServerTimeout and ServerFailed."""
        self._check_usable()
        if self.asleep:
            raise self.silence()
        try:
            with self._breaking():
                return self._predictor.parameters()
        except SERVER_FAILURES as failure:
            self._fall_asleep(failure)
            raise

    def parse(self, given: Mapping[str, object], call: Call) -> Any:
        """What a request asks for; what that takes on first use counts as loading. Raises BadRequest, ModelBroken."""
        self._check_usable()
        with self._breaking():
            if self._asked:
                return self._predictor.parse(given)
            with call.stage("load"):
                parsed = self._predictor.parse(given)
            self._asked = True
            return parsed

    def predict(self, source: bytes, params: Any, call: Call, picture: PictureFormat | None) -> Drawn:
        """The prediction for one encoded picture. Where the model is not open yet, its opening begins now, beside the
        decoding of the picture. Raises Failure."""
        self._check_usable()
        if not (self._open or self.asleep):
            self.open_beside()
        with self._judging():
            return self._predictor.predict(source, params, call, picture, self.wait)

    def wait(self, call: Call) -> None:
        """Returns once the model is open. Raises ModelBroken; Unavailable where that outlasts the call's time; and
        ServerUnreachable where the model server has been silent for `wake_s` and still is."""
        if self._open:
            return
        with call.stage("load"), self._changed:
            begun = False
            while not self._open:
                self._check_usable()
                begun = self._begin(warm_up=False) or (begun and self._warming)
                if call.remaining_s <= 0 or not (begun or self._patient):
                    raise self._late()
                self._changed.wait(min(_PROBE_EVERY_S, call.remaining_s))

    def open(self, *, warm_up: bool = False) -> None:
        """Opens the model; `warm_up` makes one prediction, which shows outputs that do not fit the family and has the
        memory ready, so that what is wrong is known before a caller finds out."""
        with self._changed:
            self._begin(warm_up=warm_up)
            while self._warming:
                self._changed.wait()

    def open_beside(self, *, warm_up: bool = False) -> None:
        """`open`, without waiting for it."""
        with self._changed:
            self._begin(warm_up=warm_up)

    def refresh(self) -> None:
        """Finds out whether what is open would still answer; asks its model server at most once a second."""
        if not self._open or monotonic() < self._probed_at + _PROBE_HOLDS_S:
            return
        self._probed_at = monotonic()
        if not self._predictor.ready():
            self._fall_asleep(ServerUnreachable("the model server does not answer"))

    @property
    def _patient(self) -> bool:
        """Whether a request may wait until the model server is asked the next time."""
        since = self._asleep_since
        return since is None or monotonic() + _PROBE_EVERY_S <= since + self._patience.wake_s

    def _late(self) -> Unavailable:
        if self.asleep:
            return self.silence()
        return Unavailable(f"model {self.name!r} is still being loaded", retry_after_s=_WARMING_RETRY_S)

    def _begin(self, *, warm_up: bool) -> bool:
        """Under the lock: has the opening begin where nobody is at it and it could change anything; whether it did."""
        done = self._open and (self._answered or not warm_up)
        if self._bundle is None or done or self._warming or monotonic() < self._retry_at:
            return False
        # What has failed again and again must show that it does not any more.
        options = {"warm_up": warm_up or self._failures >= _TOO_MANY_FAILURES}
        Thread(target=self._try, kwargs=options, name=f"open-{self.name}", daemon=True).start()
        self._warming = True
        return True

    def _try(self, *, warm_up: bool) -> None:
        opened = False
        try:
            with suppress(ModelBroken), self._breaking():  # the state tells
                self._predictor.open(warm_up=warm_up)
                opened = True
        except SERVER_FAILURES as failure:
            self._fall_asleep(failure)
        finally:
            with self._changed:
                self._warming = False
                if opened:
                    self._open, self._reason, self._asleep_since, self._failures = True, None, None, 0
                    self._openings += 1
                    self._answered = self._answered or warm_up
                self._changed.notify_all()

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """An output that does not fit the family shows that this model cannot answer: it is broken from then on. A
        model server that cannot be reached, or has failed too often on end, is left alone."""
        opening = self._openings
        try:
            yield
        except ModelOutputMismatch as error:
            self._break(error.message)
            raise
        except SERVER_FAILURES as failure:
            with self._changed:
                if self._open and opening in (self._openings, 0):  # not what an earlier opening has left behind
                    self._failures += 1
                    if isinstance(failure, ServerUnreachable) or self._failures >= _TOO_MANY_FAILURES:
                        self._fall_asleep(failure)
            raise
        self._failures, self._answered, self._probed_at = 0, True, monotonic()

    def _fall_asleep(self, failure: Failure) -> None:
        with self._changed:
            if not self.asleep:
                _log.warning("model %s: the model server is left alone: %s", self.name, failure.message)
            self._open = self._answered = False
            self._asleep_since = self._asleep_since or monotonic()
            self._wrong = isinstance(failure, ServerFailed)
            self._reason, self._retry_at = failure.message, monotonic() + _PROBE_EVERY_S
            self._retry_after_s = failure.retry_after_s or _WARMING_RETRY_S

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """What goes wrong inside is why this model is broken; the other ones, and the process, live on."""
        try:
            yield
        except (BadRequest, *SERVER_FAILURES):
            raise
        except (ConfigurationError, Failure) as error:
            self._break(str(error))
            raise self._broken() from error
        except Exception as error:  # a family may be the user's own code, which may raise anything
            _log.exception("model %s failed while it was opened", self.name)
            self._break(f"{type(error).__name__} while it was opened; the log tells more")
            raise self._broken() from error

    def _check_usable(self) -> None:
        resting = not self.asleep and self._reason is not None and monotonic() < self._retry_at
        if self._bundle is None or resting:
            raise self._broken()

    def _break(self, reason: str) -> None:
        with self._changed:
            self._open = self._answered = False
            self._reason, self._asleep_since = reason, None
            self._retry_at = monotonic() + self._patience.try_again_s
        _log.error("model %s is broken: %s", self.name, reason)

    def _broken(self) -> ModelBroken:
        return ModelBroken(
            f"model {self.name!r} cannot be used: {self._reason}",
            retry_after_s=self._patience.try_again_s,
            model=self.name,
        )
