"""Pictures forwarded as they came: what the model server's side says to each question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared import errors
from shared.errors import ConfigurationError, ServerFailed
from shared.forwarded import Forwarded
from shared.forwarding import Failed, Limits, Reply, Request
from shared.manifest import read_bundle
from shared.parameters import Usual
from tests.bundles import Answers, floats
from tests.clients import bundle, picture
from tests.segmenters import Networks

LIMITS = Limits(max_pixels=10_000)
SAM = Path(__file__).parents[2] / "model_server" / "models" / "mobile-sam"


def forwarded(root: Path) -> Forwarded:
    outputs = {"boxes": floats([[[0.25, 0.25, 0.75, 0.75]] * 5]), "scores": floats([[[0.9, 0, 0]] + [[0, 0, 0]] * 4])}
    return Forwarded(bundle(root, family="tf-detection"), {"detector": Answers(outputs)})


def ask(to: Forwarded, source: bytes, **request: Any) -> tuple[Reply, bytes]:
    asked = msgspec.structs.replace(Request("r", 10, LIMITS), **request)
    answer, drawn = to.answer(msgspec.json.encode(asked), source)
    return msgspec.json.decode(answer, type=Reply), drawn


def test_a_picture_is_answered_by_a_prediction_and_its_times(tmp_path: Path) -> None:
    reply, drawn = ask(forwarded(tmp_path), picture(hw=(40, 80)))
    found = reply.found("detection").predictions
    assert [(one.label, one.box) for one in found] == [("cat", (20.0, 10.0, 60.0, 30.0))]
    assert list(reply.stages_ms) == ["decode", "preprocess", "infer", "postprocess"]
    assert drawn == b""


def test_the_picture_is_drawn_there(tmp_path: Path) -> None:
    assert ask(forwarded(tmp_path), picture(), picture="png")[1].startswith(b"\x89PNG")


def test_a_second_click_on_a_picture_costs_no_encoder_there() -> None:
    networks = Networks(read_bundle(SAM))
    to = Forwarded(SAM, networks.runs)
    for x in (10, 20):
        reply, _ = ask(to, picture(hw=(40, 80)), given={"points": [[x, 10]]})
        assert reply.failed is None
    assert (len(networks.encoded), len(networks.decoded)) == (1, 2)


def test_parameters_are_read_there_as_the_caller_wrote_them(tmp_path: Path) -> None:
    reply, _ = ask(forwarded(tmp_path), picture(), given={"score_threshold": "0.95"})
    assert reply.found("detection").predictions == ()


def test_without_a_picture_it_says_what_may_be_asked_for(tmp_path: Path) -> None:
    reply, _ = ask(forwarded(tmp_path), b"", limits=Limits(100, Usual(score_threshold=0.7)))
    assert reply.parameters is not None
    assert reply.parameters["properties"]["score_threshold"]["default"] == 0.7


@pytest.mark.parametrize(
    ("source", "request_", "code"),
    [
        (b"no picture", {}, "not_an_image"),
        (picture(hw=(101, 100)), {}, "image_too_large"),
        (picture(), {"given": {"score_threshold": "high"}}, "invalid_parameter"),
        (picture(), {"given": {"treshold": 1}}, "unknown_parameter"),
        (picture(), {"timeout_s": 0}, "deadline_exceeded"),
    ],
)
def test_a_failure_comes_back_as_what_it_is(source: bytes, request_: Any, code: str, tmp_path: Path) -> None:
    reply, _ = ask(forwarded(tmp_path), source, **request_)
    assert reply.failed is not None
    assert reply.failed.failure().code == code


def test_a_request_that_is_none_is_a_fault_of_the_service(tmp_path: Path) -> None:
    answer, _ = forwarded(tmp_path).answer(b"{", picture())
    assert b"internal_error" in answer


def test_a_bundle_that_does_not_fit_its_family_is_found_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs an output with role 'logits'"):
        Forwarded(bundle(tmp_path, family="detr"), {})


@pytest.mark.parametrize(
    "kind", [kind for kind in errors.kinds() if kind not in (errors.MethodNotAllowed, errors.InternalError)]
)
def test_every_failure_survives_the_journey(kind: type[errors.Failure]) -> None:
    failure = kind("why", retry_after_s=3, limit=7)
    back = msgspec.json.decode(msgspec.json.encode(Failed.of(failure)), type=Failed).failure()
    assert (type(back), back.message, back.retry_after_s, back.figures) == (kind, "why", 3, {"limit": 7})


def test_a_fault_of_the_model_server_is_one_of_its_answer() -> None:
    assert [type(Failed(code, "why").failure()) for code in ("from_the_future", "internal_error")] == [ServerFailed] * 2
