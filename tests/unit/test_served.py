"""How a model stands whose model server comes, goes and fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Timer
from time import monotonic, sleep
from typing import Any

import pytest

from shared.call import Call
from shared.errors import (
    SERVER_FAILURES,
    ConfigurationError,
    Failure,
    ModelBroken,
    ModelOutputMismatch,
    ServerFailed,
    ServerTimeout,
    ServerUnreachable,
)
from shared.predictions import Prediction
from shared.predictor import Drawn, Opened, PictureFormat
from shared.served import Patience, ServedModel
from tests.clients import bundle


def gone() -> Failure:
    return ServerUnreachable("the model server cannot be reached", retry_after_s=2)


@dataclass
class Scripted:
    """A Predictor whose model server does what `opening`, `answering` and `alive` say; None is all well."""

    opening: Callable[[], Exception | None] = lambda: None
    answering: Callable[[], Exception | None] = lambda: None
    alive: bool = True
    opened: list[float] = field(default_factory=list)

    def parameters(self) -> dict[str, object]:
        return {}

    def parse(self, given: Mapping[str, object]) -> Any:
        return given

    def open(self, *, warm_up: bool) -> None:
        self.opened.append(monotonic())
        error = self.opening()
        if error is not None:
            raise error

    def ready(self) -> bool:
        return self.alive

    def predict(self, source: bytes, params: Any, call: Call, picture: PictureFormat | None, opened: Opened) -> Drawn:
        opened(call)
        error = self.answering()
        if error is not None:
            raise error
        return Drawn(Prediction((1, 1), ()))


def served(root: Path, scripted: Scripted, wake_s: float = 0.0) -> ServedModel:
    return ServedModel(bundle(root), "triton", lambda _: scripted, Patience(wake_s, try_again_s=2))


def ask(model: ServedModel, timeout_s: float = 10) -> Drawn:
    return model.predict(b"", {}, Call("test", timeout_s), None)


def test_a_request_waits_for_a_server_that_wakes(tmp_path: Path) -> None:
    scripted = Scripted(opening=gone)
    model = served(tmp_path, scripted, wake_s=10)
    Timer(0.7, lambda: setattr(scripted, "opening", lambda: None)).start()
    assert ask(model).prediction.source_hw == (1, 1)
    assert model.state == "ready"


def test_a_request_does_not_wait_longer_than_it_is_told_to(tmp_path: Path) -> None:
    model = served(tmp_path, Scripted(opening=gone), wake_s=0.6)
    begin = monotonic()
    with pytest.raises(ServerUnreachable) as raised:
        ask(model)
    assert 0.1 < monotonic() - begin < 1.5
    assert raised.value.retry_after_s
    assert (model.state, model.reason) == ("warming", "the model server cannot be reached")


def test_a_request_never_waits_past_its_own_time(tmp_path: Path) -> None:
    begin = monotonic()
    with pytest.raises(SERVER_FAILURES):
        ask(served(tmp_path, Scripted(opening=gone), wake_s=60), timeout_s=0.8)
    assert monotonic() - begin < 0.9


def test_once_patience_is_over_requests_fail_at_once(tmp_path: Path) -> None:
    model = served(tmp_path, Scripted(opening=gone), wake_s=0)
    with pytest.raises(ServerUnreachable):
        ask(model)
    begin = monotonic()
    with pytest.raises(ServerUnreachable):
        ask(model)
    assert monotonic() - begin < 0.2


def test_a_sleeping_server_is_asked_at_most_twice_a_second_however_many_wait(tmp_path: Path) -> None:
    scripted = Scripted(opening=gone)
    model = served(tmp_path, scripted, wake_s=1.5)

    def failed() -> bool:
        with pytest.raises(ServerUnreachable):
            ask(model)
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: failed(), range(16)))
    assert len(scripted.opened) <= 5


def test_a_server_that_cannot_be_reached_is_left_alone_and_opened_anew(tmp_path: Path) -> None:
    scripted = Scripted()
    model = served(tmp_path, scripted, wake_s=5)
    ask(model)
    scripted.answering = gone
    with pytest.raises(ServerUnreachable):
        ask(model)
    assert (model.state, model.asleep) == ("warming", True)
    scripted.answering = lambda: None
    ask(model)
    assert (model.state, model.reason, len(scripted.opened)) == ("ready", None, 2)


@pytest.mark.parametrize(("kind", "then"), [(ServerTimeout, "warming"), (ServerFailed, "broken")])
def test_a_server_that_fails_too_often_on_end_is_left_alone(kind: type[Failure], then: str, tmp_path: Path) -> None:
    scripted = Scripted(answering=lambda: kind("no"))
    model = served(tmp_path, scripted)
    for state in ["ready"] * 4 + [then]:
        with pytest.raises(kind):
            ask(model)
        assert model.state == state


def test_an_answer_in_between_makes_failures_forgotten(tmp_path: Path) -> None:
    scripted = Scripted()
    model = served(tmp_path, scripted)
    for _ in range(3):
        scripted.answering = lambda: ServerFailed("no")
        for _ in range(4):
            with pytest.raises(ServerFailed):
                ask(model)
        scripted.answering = lambda: None
        ask(model)
    assert len(scripted.opened) == 1


def test_a_wrong_model_on_the_server_is_broken_and_says_what_differs(tmp_path: Path) -> None:
    scripted = Scripted(opening=lambda: ConfigurationError("own: networks.detector.outputs: there is no 'boxes'"))
    model = served(tmp_path, scripted, wake_s=10)
    with pytest.raises(ModelBroken, match="there is no 'boxes'"):
        ask(model)
    assert model.state == "broken"


def test_another_model_put_in_its_place_breaks_it(tmp_path: Path) -> None:
    scripted = Scripted()
    model = served(tmp_path, scripted)
    ask(model)
    scripted.answering = lambda: ModelOutputMismatch("output 'boxes' is missing")
    with pytest.raises(ModelOutputMismatch):
        ask(model)
    assert model.state == "broken"


def test_a_server_that_has_gone_is_found_by_whoever_asks_how_it_stands(tmp_path: Path) -> None:
    scripted = Scripted()
    model = served(tmp_path, scripted)
    ask(model)
    scripted.alive = False
    model.refresh()
    assert model.state == "ready"  # it has answered a moment ago
    sleep(1.1)
    model.refresh()
    assert (model.state, model.reason) == ("warming", "the model server does not answer")


def test_failures_from_before_a_reopening_do_not_count_against_it(tmp_path: Path) -> None:
    scripted, late = Scripted(), Event()
    model = served(tmp_path, scripted)
    ask(model)

    def stale() -> Failure:
        scripted.answering = lambda: None
        late.wait(10)
        return gone()

    scripted.answering = stale
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, model)
        model._fall_asleep(ServerUnreachable("gone"))
        sleep(0.6)
        model.open()
        late.set()
        with pytest.raises(ServerUnreachable):
            waiting.result()
    assert model.state == "ready"


def test_what_nobody_has_answered_with_is_tried_out_by_whoever_asks_how_it_stands(tmp_path: Path) -> None:
    scripted = Scripted()
    model = served(tmp_path, scripted)
    model.open()
    model.open(warm_up=True)
    model.open(warm_up=True)
    assert len(scripted.opened) == 2


def test_a_predictor_that_cannot_be_made_says_why_for_ever(tmp_path: Path) -> None:
    def make(_: Any) -> Any:
        raise ConfigurationError("own: the family is not there")

    model = ServedModel(bundle(tmp_path), "triton", make, Patience(0, try_again_s=0))
    for _ in range(2):
        with pytest.raises(ModelBroken, match="the family is not there"):
            ask(model)
