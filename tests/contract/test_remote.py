"""Pictures forwarded as they came, before a real HTTP server that answers well, wrongly or with another bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from werkzeug.test import Client

from shared.errors import ServerFailed
from shared.forwarded import Forwarded
from shared.forwarding import INPUTS, OUTPUTS, Failed, Reply
from shared.predictions import Prediction
from shared.tensors import TensorSpec
from tests.bundles import Answers, floats
from tests.clients import bundle, client, failed, picture, post
from tests.hostile_pictures import HOSTILE
from tests.oip_server import Arrays, OipServer

Said = Callable[[bytes, bytes], tuple[bytes, bytes]]


def described(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "datatype": "UINT8", "shape": [-1]} for spec in specs]


def answering(said: Said) -> Callable[[Arrays], Arrays]:
    def answer(inputs: Arrays) -> Arrays:
        answer, drawn = said(inputs["request"].tobytes(), inputs["picture"].tobytes())
        return {"answer": np.frombuffer(answer, np.uint8), "drawn": np.frombuffer(drawn, np.uint8)}

    return answer


def well(folder: Path) -> Said:
    outputs = {"boxes": floats([[[0.25, 0.25, 0.75, 0.75]] * 5]), "scores": floats([[[0.9, 0, 0]] + [[0, 0, 0]] * 4])}
    return Forwarded(folder, {"detector": Answers(outputs)}).answer


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return bundle(tmp_path, family="tf-detection")


@pytest.fixture
def server(own: Path) -> Iterator[OipServer]:
    with OipServer() as running:
        running.model = "own"
        running.metadata = {"name": "own", "inputs": described(INPUTS), "outputs": described(OUTPUTS)}
        running.answer = answering(well(own))
        yield running


@pytest.fixture
def forwarding(own: Path, server: OipServer) -> Client:
    return client(
        models=str(own), backend="triton", backend_url=server.url, forward="encoded", wake_s=0, retries=0, timeout_s=5
    )


def test_the_answer_is_the_model_servers(forwarding: Client) -> None:
    reply = post(forwarding).get_json()
    assert [(found["label"], found["box"]) for found in reply["predictions"]] == [("cat", [16, 12, 48, 36])]
    assert {"forward", "server_decode", "server_infer"} <= reply["timings_ms"].keys()


def test_the_drawn_picture_is_the_model_servers(forwarding: Client) -> None:
    assert post(forwarding, query_string={"format": "png"}).data.startswith(b"\x89PNG")


def test_parameters_come_from_the_model_server(forwarding: Client) -> None:
    post(forwarding)
    assert forwarding.get("/models").get_json()["models"][0]["parameters"]["properties"]["max_predictions"]
    failed(post(forwarding, query_string={"treshold": "1"}), 400, "unknown_parameter")


def test_what_is_no_picture_is_not_sent(forwarding: Client, server: OipServer) -> None:
    post(forwarding)
    sent = len(server.heads)
    failed(post(forwarding, data=b"no picture"), 415, "not_an_image")
    assert len(server.heads) == sent


def test_a_hostile_picture_is_refused_as_what_it_is(forwarding: Client) -> None:
    for name, make in HOSTILE.items():
        data = make()
        if 0 < len(data) < 4_000_000:
            assert post(forwarding, data=data).status_code in (200, 413, 415, 422), name


def test_another_bundle_of_the_same_name_is_found_before_a_picture_comes(
    own: Path, server: OipServer, tmp_path: Path, forwarding: Client
) -> None:
    manifest = (own / "model.json").read_text()
    other = tmp_path / "other" / "own"
    other.mkdir(parents=True)
    (other / "model.json").write_text(manifest.replace('"cat"', '"lynx"'))
    server.answer = answering(well(other))
    error = failed(post(forwarding), 503, "model_broken")
    assert "another bundle of this name" in error["message"]


WHOLE = msgspec.json.encode(Reply.of(Prediction((48, 64), ()), {}))
WRONG: dict[str, tuple[bytes, bytes]] = {
    "no JSON": (b"{", b""),
    "no UTF-8": (b'{"prediction": "\xff"}', b""),
    "nothing": (b"{}", b""),
    "no size": (msgspec.json.encode(Reply.of(Prediction((-5, 0), ()), {})), b""),
    "a fault": (msgspec.json.encode(Reply(failed=Failed("internal_error", "why"))), b""),
    "an unknown code": (msgspec.json.encode(Reply(failed=Failed("from_the_future", "why"))), b""),
    "figures of its own": (b'{"failed": {"code": "server_failed", "message": "m", "figures": {"self": 1}}}', b""),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_answer_that_is_none_is_a_failure_of_the_server(what: str, forwarding: Client, server: OipServer) -> None:
    post(forwarding)
    server.answer = answering(lambda request, picture: WRONG[what])
    failed(post(forwarding), 502, ServerFailed.code)


def test_a_picture_that_was_not_drawn_is_a_failure_of_the_server(forwarding: Client, server: OipServer) -> None:
    post(forwarding)
    server.answer = answering(lambda request, picture: (WHOLE, b""))
    failed(post(forwarding, query_string={"format": "png"}), 502, ServerFailed.code)


def test_the_server_is_told_how_long_its_answer_is_waited_for(own: Path, server: OipServer) -> None:
    told: list[float] = []
    answer = well(own)

    def listening(request: bytes, source: bytes) -> tuple[bytes, bytes]:
        told.append(msgspec.json.decode(request)["timeout_s"])
        return answer(request, source)

    server.answer = answering(listening)
    settings = {"backend": "triton", "backend_url": server.url, "forward": "encoded", "backend_timeout_s": 1}
    assert post(client(models=str(own), **settings), data=picture()).status_code == 200
    assert 0.5 < told[-1] < 1
