"""A function whose model server fails, in every way that a server on the other end of a socket can: what callers are
told, when, and what is left of it afterwards. The function is real, and so is the HTTP; the model is a small one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from threading import Timer
from time import monotonic, sleep
from typing import Any

import pytest
import requests
from werkzeug.test import Client, TestResponse

from tests import oip_server as oip
from tests import servers
from tests.chaos import SPARE_THREADS, Held, held, until
from tests.clients import bundle, client, failed, picture, post
from tests.oip_server import Exchange, Fault, Json, OipServer
from tests.servers import free_port

TIMEOUT_S = 1.0
MARGIN_S = 0.5
SECRET = "secret-words at tensor://10.1.2.3/srv/models"
INPUTS = [{"name": "image", "datatype": "FP32", "shape": [1, 3, 64, 64]}]
OUTPUTS: list[Json] = [
    {"name": "boxes", "datatype": "FP32", "shape": [1, 5, 4]},
    {"name": "scores", "datatype": "FP32", "shape": [1, 5, 3]},
]
METADATA: Json = {"name": oip.MODEL, "inputs": INPUTS, "outputs": OUTPUTS}


def answering(*changes: Callable[[Json], None]) -> Fault:
    """What the network answers to any picture: one owl in the upper left; with `changes` made to it."""
    boxes, scores = [0.0] * 20, [0.0] * 15
    boxes[:4], scores[2] = [0.0, 0.0, 0.5, 0.5], 0.9

    def answer(exchange: Exchange) -> None:
        data = {"boxes": boxes, "scores": scores}
        reply: Json = {"model_name": oip.MODEL, "outputs": [each | {"data": data[each["name"]]} for each in OUTPUTS]}
        for change in changes:
            change(reply)
        exchange.reply(json.dumps(reply).encode())

    return answer


well = answering()


@pytest.fixture
def server() -> Iterator[OipServer]:
    with OipServer() as started:
        started.metadata, started.inference = METADATA, well
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bundle(tmp_path, family="tf-detection")


def function(url: str, folder: Path, **settings: Any) -> Client:
    given = {"timeout_s": TIMEOUT_S, "wake_s": 0, "retries": 0} | settings
    return client(backend="triton", backend_url=url, models=str(folder), **given)


@pytest.fixture
def asked(server: OipServer, folder: Path) -> Client:
    """The function, once it has answered."""
    made = function(server.url, folder)
    assert labels(post(made)) == ["owl"]
    return made


def labels(response: TestResponse) -> list[str]:
    return [each["label"] for each in response.get_json()["predictions"]]


def timed(to: Client) -> tuple[TestResponse, float]:
    begin = monotonic()
    return post(to), monotonic() - begin


FAULTS: dict[str, tuple[Fault, int, str]] = {
    "says nothing": (oip.silence, 504, "server_timeout"),
    "drips its headers": (oip.drip_headers, 504, "server_timeout"),
    "drips its body": (oip.drip_body, 504, "server_timeout"),
    "drips chunks": (oip.drip_chunks, 504, "server_timeout"),
    "asks to go on, for ever": (oip.endless_continue, 504, "server_timeout"),
    "breaks off in the headers": (oip.cut_in_headers, 502, "server_failed"),
    "breaks off in the body": (oip.cut_in_body, 502, "server_failed"),
    "resets the connection in the body": (oip.reset_in_body, 502, "server_failed"),
    "hangs up": (oip.hang_up, 502, "server_failed"),
    "resets the connection": (oip.reset, 502, "server_failed"),
    "speaks no HTTP": (oip.garbage, 502, "server_failed"),
    "has headers without end": (oip.endless_headers, 502, "server_failed"),
    "does not say how long its answer is": (oip.unsized, 502, "server_failed"),
    "lies about the length": (oip.lying_length, 502, "server_failed"),
    "has an empty answer": (oip.empty, 502, "server_failed"),
    "is a proxy's page": (oip.no_json, 502, "server_failed"),
    "fails": (oip.failing(500, SECRET), 502, "server_failed"),
    "refuses the request": (oip.failing(400, SECRET), 502, "server_failed"),
    "has lost the model": (oip.failing(404, SECRET), 503, "server_busy"),
    "has too much to do": (oip.failing(429, SECRET), 503, "server_busy"),
    "is busy": (oip.failing(503, SECRET), 503, "server_busy"),
    "is behind a proxy that gave up": (oip.failing(504, SECRET), 504, "server_timeout"),
    "has not enough memory": (oip.failing(500, f"CUDA out of memory {SECRET}"), 413, "out_of_memory"),
}
MISFITS: dict[str, Callable[[Json], None]] = {
    "an output of another name": lambda reply: reply["outputs"][0].update(name="boks"),
    "an output that is missing": lambda reply: reply["outputs"].pop(),
    "an output of another dtype": lambda reply: reply["outputs"][0].update(datatype="FP64"),
    "an output of another shape": lambda reply: reply["outputs"][0].update(shape=[1, 4, 5]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_request_is_told_what_the_server_did_in_time_and_the_next_one_is_answered(
    name: str, server: OipServer, asked: Client
) -> None:
    fault, status, code = FAULTS[name]
    server.faults = [fault] * (2 if status == 502 else 1)  # a connection that was kept is replaced once, in silence
    response, took_s = timed(asked)
    error = failed(response, status, code)
    assert took_s < TIMEOUT_S + MARGIN_S
    assert (status == 503) == ("Retry-After" in response.headers)
    told = json.dumps(error)
    assert not any(word in told for word in ("secret-words", "10.1.2.3", "127.0.0.1", str(server.port)))
    server.faults = []
    assert labels(post(asked)) == ["owl"]


@pytest.mark.parametrize("name", MISFITS)
def test_an_answer_that_is_not_what_was_declared_is_never_taken_for_one(
    name: str, server: OipServer, asked: Client
) -> None:
    server.inference = answering(MISFITS[name])
    failed(post(asked), 502, "model_output_mismatch")
    failed(post(asked), 503, "model_broken")
    server.inference = well
    assert until(lambda: post(asked).status_code == 200) < 5


def test_a_server_that_says_when_to_come_back_is_passed_on(server: OipServer, asked: Client) -> None:
    server.inference = oip.busy_until("7")
    assert post(asked).headers["Retry-After"] == "7"


def test_a_silent_server_is_no_reason_to_keep_anyone_past_the_time_limit(server: OipServer, folder: Path) -> None:
    server.fault = oip.silence
    patient = function(server.url, folder, wake_s=30)
    for pause_s in (0.0, 1.2, 0.3, 0.7):  # before, in the middle and after the moments when the server is asked
        sleep(pause_s)
        response, took_s = timed(patient)
        assert (response.status_code, "Retry-After" in response.headers) == (503, True)
        assert took_s < TIMEOUT_S + MARGIN_S


def test_a_silent_server_is_left_alone_by_all_but_one(server: OipServer, asked: Client) -> None:
    server.fault = oip.silence
    for _ in range(5):
        failed(post(asked), 504, "server_timeout")
    begin, before = monotonic(), len(server.requests)
    codes = [post(asked).get_json()["error"]["code"] for _ in range(50)]
    assert set(codes) == {"server_unreachable"}
    assert len(server.requests) - before <= 1 + 2 * (monotonic() - begin)


def test_a_server_that_has_gone_is_found_again_within_seconds(folder: Path) -> None:
    port = free_port()
    made = function(f"http://127.0.0.1:{port}", folder)
    for _ in range(2):
        failed(post(made), 503, "server_unreachable")
        with OipServer(port=port) as server:
            server.metadata, server.inference = METADATA, well
            assert until(lambda: post(made).status_code == 200) < 2
        failed(post(made), 503, "server_unreachable")


def test_requests_wait_for_a_server_that_comes_up_late_and_are_answered(folder: Path) -> None:
    port = free_port()
    made = function(f"http://127.0.0.1:{port}", folder, wake_s=10, timeout_s=10)
    assert made.get("/ready").get_json()["state"] in ("cold", "warming")
    server = OipServer(port=port)
    server.metadata, server.inference, server.model_ready = METADATA, well, False
    with server:
        until(lambda: "not ready" in made.get("/ready").get_json().get("reason", ""))
        assert made.get("/ready").get_json()["state"] == "warming"
        Timer(1, setattr, (server, "model_ready", True)).start()
        assert labels(post(made)) == ["owl"]


def wrong(kind: str, **changed: object) -> Json:
    """The server's metadata once somebody has put another model there."""
    changed_first = [METADATA[kind][0] | changed, *METADATA[kind][1:]]
    return METADATA | {kind: changed_first}


REPLACED = [
    (wrong("outputs", name="boks"), "there is no 'boxes' on the model server"),
    (wrong("outputs", shape=[1, 5, 5]), "expected shape [1, 5, 5]"),
    (wrong("inputs", datatype="UINT8"), "expected dtype uint8"),
    (wrong("inputs", shape=[1, 3, 32, 32]), "expected shape [1, 3, 32, 32]"),
]


@pytest.mark.parametrize(("metadata", "what"), REPLACED)
def test_a_model_that_was_replaced_is_found_by_ready_before_anyone_asks_it(
    metadata: Json, what: str, server: OipServer, asked: Client
) -> None:
    assert asked.get("/ready").status_code == 200
    server.metadata = metadata
    until(lambda: asked.get("/ready").get_json()["state"] == "broken", 5)
    ready = asked.get("/ready")
    assert what in failed(ready, 503, "model_broken")["message"]
    assert "Retry-After" in ready.headers
    assert what in failed(post(asked), 503, "model_broken")["message"]
    assert sum("infer" in request for request in server.requests) == 1
    server.metadata = METADATA
    assert until(lambda: post(asked).status_code == 200) < 5


@pytest.mark.parametrize("forward", ["tensor", "encoded"])
def test_a_stand_in_answers_in_time_when_the_server_freezes(forward: str, server: OipServer, folder: Path) -> None:
    server.fault = oip.silence
    covered = function(server.url, folder, forward=forward, fallback="onnx")
    for _ in range(8):
        response, took_s = timed(covered)
        assert (response.status_code, response.get_json()["backend"]) == (200, "onnx")
        assert took_s < TIMEOUT_S
        assert response.get_json()["notes"][0].startswith("answered by onnx in this process: ")


def test_once_the_server_is_known_to_sleep_a_stand_in_costs_nothing_more(server: OipServer, folder: Path) -> None:
    server.fault = oip.silence
    covered = function(server.url, folder, fallback="onnx")
    until(lambda: "did not answer" in covered.get("/ready").get_json().get("reason", ""))
    assert max(timed(covered)[1] for _ in range(20)) < 0.3
    assert 'thinlens_fallbacks_total{code="server_unreachable",model="own"} 20.0' in covered.get("/metrics").text


def test_the_server_answers_again_within_seconds_where_a_stand_in_has(server: OipServer, folder: Path) -> None:
    server.fault = oip.silence
    covered = function(server.url, folder, fallback="onnx")
    assert post(covered).get_json()["backend"] == "onnx"
    server.fault = None
    assert until(lambda: post(covered).get_json()["backend"] == "triton") < 5
    assert labels(post(covered)) == ["owl"]


_QUICK = [
    oip.cut_in_headers, oip.cut_in_body, oip.hang_up, oip.reset, oip.garbage, oip.unsized, oip.lying_length, oip.empty,
    oip.no_json, oip.failing(500, SECRET), oip.failing(503, SECRET), oip.silence,
]  # fmt: skip
_UNFELT_FAILURES = 4  # on end: one more, and the server would be left alone


def test_a_thousand_failures_leave_no_thread_socket_or_memory_behind(server: OipServer, folder: Path) -> None:
    settings = {
        "THINLENS_BACKEND": "triton",
        "THINLENS_BACKEND_URL": server.url,
        "THINLENS_BACKEND_TIMEOUT_S": "0.1",
        "THINLENS_RETRIES": "0",
        "THINLENS_MODELS": str(folder),
        "THINLENS_LOG_LEVEL": "error",
    }
    with servers.container(settings) as running, requests.Session() as session:

        def status() -> int:
            headers = {"Content-Type": "image/png"}
            return session.post(f"{running.url}/predict", data=picture(), headers=headers, timeout=30).status_code

        def fail(times: int) -> Held:
            faults = islice(cycle(_QUICK), times)
            for number, fault in enumerate(faults):
                server.inference = fault
                assert status() in (502, 503, 504)
                if number % _UNFELT_FAILURES == _UNFELT_FAILURES - 1:
                    server.inference = well
                    until(lambda: status() == 200)
            return held(running)

        until(lambda: status() == 200)
        early = fail(100)
        late = fail(1000)
        server.inference = well
        assert until(lambda: status() == 200) < 5
    assert late.threads <= early.threads + SPARE_THREADS
    assert late.descriptors <= early.descriptors
    assert late.megabytes < early.megabytes + 16
