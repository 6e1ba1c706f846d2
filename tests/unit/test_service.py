from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest

from shared import backends
from shared import served as subject
from shared.backends import Backend, Run
from shared.call import Call
from shared.errors import ConfigurationError, ModelBroken, ModelNotFound, ModelOutputMismatch, Unavailable
from shared.local import LocalPredictor
from shared.manifest import NetworkSpec
from shared.served import ServedModel
from shared.service import Service
from shared.settings import Settings
from tests import families
from tests.clients import bundle, picture, unfitting_bundle


class Counting:
    """A Backend that remembers what it has opened."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.opened: list[str] = []

    def open(self, network: NetworkSpec) -> Run:
        self.opened.append(network.network)
        return self._backend.open(network)


def service(root: Path, **settings: Any) -> Service:
    return Service(Settings(models=str(root), **settings))


def call() -> Call:
    return Call("test", 10)


def test_a_model_is_opened_once_however_many_ask_at_once(tmp_path: Path) -> None:
    bundle(tmp_path)
    connected = Counting(backends.connect("onnx", Settings()))
    served = ServedModel(tmp_path / "own", "onnx", lambda own: LocalPredictor(own, lambda: connected, max_pixels=10**6))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: served.wait(call()), range(8)))
    assert (served.state, connected.opened) == ("ready", ["detector"])


def test_a_model_that_is_open_is_not_waited_for(tmp_path: Path) -> None:
    bundle(tmp_path)
    built = service(tmp_path)
    served = built.find(None)
    assert [built.predict(served, picture(), {}, call()).cold for _ in range(2)] == [True, False]


def test_building_a_service_opens_nothing(tmp_path: Path) -> None:
    bundle(tmp_path, family="tests.families:exploding")
    built = service(tmp_path)
    assert built.find(None).state == "cold"


def test_a_broken_model_is_tried_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bundle(tmp_path)
    weights = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").unlink()
    served = service(tmp_path).find(None)
    with pytest.raises(ModelBroken, match=r"cannot read 'model.onnx'") as raised:
        served.wait(call())
    assert raised.value.retry_after_s
    (folder / "model.onnx").write_bytes(weights)
    with pytest.raises(ModelBroken):
        served.wait(call())
    later = monotonic() + raised.value.retry_after_s + 1
    monkeypatch.setattr(subject, "monotonic", lambda: later)
    served.wait(call())
    assert (served.state, served.reason) == ("ready", None)


def test_who_cannot_wait_for_the_loading_is_told_to_come_back(tmp_path: Path) -> None:
    bundle(tmp_path, family="tests.families:waiting")
    served = service(tmp_path).find(None)
    families.GATE.clear()
    warming = Thread(target=served.open, kwargs={"warm_up": True})
    warming.start()
    try:
        ends_at = monotonic() + 5
        while served.state != "warming" and monotonic() < ends_at:
            sleep(0.005)
        with pytest.raises(Unavailable) as raised:
            served.wait(Call("test", 0.05))
        assert raised.value.retry_after_s
    finally:
        families.GATE.set()
        warming.join()
    assert served.state == "ready"


def test_a_prediction_says_how_large_the_picture_is(tmp_path: Path) -> None:
    bundle(tmp_path)
    built = service(tmp_path)
    served = built.find(None)
    answer = built.predict(served, picture(hw=(30, 40)), {}, call())
    assert (answer.prediction.source_hw, answer.cold, answer.picture) == ((30, 40), True, b"")


def test_a_slot_is_given_back_when_a_model_fails(tmp_path: Path) -> None:
    bundle(tmp_path, family="tests.families:buggy")
    built = service(tmp_path, max_concurrency=1)
    served = built.find(None)
    for _ in range(3):
        with pytest.raises(LookupError):
            built.predict(served, picture(), {}, call())
    assert built.admission.load == (0, 0)


def test_the_only_model_is_the_default(tmp_path: Path) -> None:
    bundle(tmp_path, "a")
    assert service(tmp_path).find(None).name == "a"


def test_the_folder_of_one_bundle_is_a_folder_of_models(tmp_path: Path) -> None:
    assert list(service(bundle(tmp_path, "a")).models) == ["a"]


def test_of_two_models_the_named_one_is_the_default(tmp_path: Path) -> None:
    bundle(tmp_path, "a")
    bundle(tmp_path, "b")
    assert service(tmp_path, model="b").find(None).name == "b"
    with pytest.raises(ModelNotFound, match="name one of a, b in the path"):
        service(tmp_path).find(None)


def test_of_several_models_the_bundled_one_is_the_default(tmp_path: Path) -> None:
    bundle(tmp_path, "a")
    bundle(tmp_path, "coco-ssd-mobilenet-v2")
    assert service(tmp_path).find(None).name == "coco-ssd-mobilenet-v2"


def test_an_unknown_model_is_told_the_nearest(tmp_path: Path) -> None:
    bundle(tmp_path, "detector")
    with pytest.raises(ModelNotFound, match="did you mean 'detector'"):
        service(tmp_path).find("detectr")


@pytest.mark.parametrize(
    ("prepare", "settings", "message"),
    [
        (lambda root: None, {}, r"THINLENS_MODELS: .* found no \*/model.json"),
        (lambda root: bundle(root, "a"), {"model": "b"}, "THINLENS_MODEL: there is no 'b'"),
        (
            lambda root: [_named(bundle(root, each)) for each in "ab"],
            {},
            "THINLENS_MODELS: two bundles are named 'same'",
        ),
    ],
)
def test_a_wrong_folder_of_models_is_a_wrong_setting(
    prepare: Any, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    prepare(tmp_path)
    with pytest.raises(ConfigurationError, match=message) as raised:
        service(tmp_path, **settings)
    assert str(tmp_path) not in str(raised.value)


def _named(folder: Path) -> int:
    declared = json.loads((folder / "model.json").read_text())
    return (folder / "model.json").write_text(json.dumps(declared | {"name": "same"}))


def test_asking_for_the_state_starts_the_loading_of_what_must_answer(tmp_path: Path) -> None:
    bundle(tmp_path, "a")
    bundle(tmp_path, "b")
    built = service(tmp_path, model="a")
    assert built.standing() == ("cold", None, "onnx")
    ends_at = monotonic() + 10
    while built.standing().state != "ready" and monotonic() < ends_at:
        sleep(0.01)
    assert (built.models["a"].state, built.models["b"].state) == ("ready", "cold")


def test_a_loading_that_outlasts_a_requests_time_is_not_a_broken_model(tmp_path: Path) -> None:
    bundle(tmp_path, family="tests.families:waiting")
    built = service(tmp_path, timeout_s=0.05)
    families.GATE.clear()
    built.standing()
    sleep(0.2)
    families.GATE.set()
    ends_at = monotonic() + 10
    while built.standing().state in ("cold", "warming") and monotonic() < ends_at:
        sleep(0.01)
    assert built.standing() == ("ready", None, "onnx")


def test_an_output_that_does_not_fit_makes_the_model_broken_whoever_finds_it(tmp_path: Path) -> None:
    unfitting_bundle(tmp_path, ["a", "b"])
    built = service(tmp_path)
    served = built.find(None)
    with pytest.raises(ModelOutputMismatch, match=r"output 'scores': .* expects shape \[1, 5, 2\]"):
        built.predict(served, picture(), {}, call())
    state, reason, _ = built.standing()
    assert state == "broken"
    assert "output 'scores'" in str(reason)


def test_a_family_is_made_once_however_many_ask_at_once(tmp_path: Path) -> None:
    bundle(tmp_path, family="tests.families:counted")
    served = service(tmp_path).find(None)
    families.MADE.clear()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: served.parameters(), range(8)))
    assert len(families.MADE) == 1
