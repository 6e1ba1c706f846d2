"""What is answered while the model server is gone: by the embedded backend where one stands in, by 503 where none."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import pytest
from werkzeug.test import Client

from tests.clients import client, failed, post
from tests.servers import free_port


def without_server(**settings: Any) -> Client:
    """The application before a model server that is not there."""
    return client(backend="triton", backend_url=f"http://127.0.0.1:{free_port()}", wake_s=0, retries=0, **settings)


def until(found: Callable[[], bool]) -> None:
    ends_at = monotonic() + 20
    while not found():
        assert monotonic() < ends_at
        sleep(0.02)


def test_a_request_is_told_to_come_back() -> None:
    response = post(without_server())
    failed(response, 503, "server_unreachable")
    assert int(response.headers["Retry-After"]) >= 1


def test_ready_says_that_it_is_warming_and_why() -> None:
    alone = without_server()
    until(lambda: alone.get("/ready").get_json()["state"] == "warming")
    until(lambda: "cannot be reached" in alone.get("/ready").get_json().get("reason", ""))
    response = alone.get("/ready")
    failed(response, 503, "not_ready")
    assert response.get_json()["backend"] == "triton"


@pytest.mark.parametrize("forward", ["tensor", "encoded"])
def test_the_embedded_backend_stands_in_and_the_reply_says_so(forward: str) -> None:
    reply = post(without_server(fallback="onnx", forward=forward)).get_json()
    assert (reply["backend"], reply["predictions"]) == ("onnx", [])
    (note,) = reply["notes"]
    assert note == "answered by onnx in this process: the model server cannot be reached (server_unreachable)"


def test_stand_ins_are_counted_by_what_went_wrong() -> None:
    covered = without_server(fallback="onnx")
    post(covered)
    line = 'thinlens_fallbacks_total{code="server_unreachable",model="coco-ssd-mobilenet-v2"} 1.0'
    assert line in covered.get("/metrics").text


def test_a_service_with_a_stand_in_is_ready_and_says_who_answers() -> None:
    covered = without_server(fallback="onnx")
    until(lambda: covered.get("/ready").status_code == 200)
    ready = covered.get("/ready").get_json()
    assert (ready["state"], ready["backend"]) == ("ready", "onnx")
    assert "cannot be reached" in ready["reason"]


def test_a_stand_in_is_no_help_against_a_bad_picture_or_parameter() -> None:
    covered = without_server(fallback="onnx")
    failed(post(covered, data=b"no picture"), 415, "not_an_image")
    failed(post(covered, query_string={"score_treshold": "1"}), 400, "unknown_parameter")


def test_what_the_models_take_is_told_while_their_server_is_gone() -> None:
    assert without_server().get("/models").get_json()["models"][0]["parameters"]["properties"]
    assert without_server(forward="encoded").get("/models").get_json()["models"][0]["ready"] is False
    assert without_server(forward="encoded").get("/openapi.json").status_code == 200
