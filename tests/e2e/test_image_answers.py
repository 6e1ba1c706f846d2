"""Every container image is asked the same, with little memory, one processor and nowhere to write but /tmp."""

from __future__ import annotations

import subprocess
from base64 import b64encode
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import pytest
import requests

from docker.matrix import building
from docker.matrix.variants import EXTERNAL, Variant
from tests.agreement import agree
from tests.clients import check_failure
from tests.container_images import Functions, Images
from tests.containers import Container, Engine
from tests.servers import ROOT

pytestmark = pytest.mark.images

_TIMEOUT_S = 60.0
_WAKE_S = 60.0
_MAX_BODY = 20_000_000
_JPEG = {"Content-Type": "image/jpeg"}
_PLACES = ("/app", "/opt/", "/home/", "/azure-functions-host")
_FAILURES: dict[str, tuple[str, dict[str, Any], int]] = {
    "a picture cut short": ("/predict", {"data": "cut", "headers": _JPEG}, 422),
    "bytes that are no picture": ("/predict", {"data": b"not a picture", "headers": _JPEG}, 415),
    "a parameter that is not known": ("/predict?colour=red", {"data": "photo", "headers": _JPEG}, 400),
    "a route that is not there": ("/nothing", {"data": "photo", "headers": _JPEG}, 404),
    "a body too large": ("/predict", {"data": "large", "headers": _JPEG}, 413),
}


@pytest.fixture(scope="session")
def answered(function: Container, photo: bytes) -> Any:
    """The container's first reply to the photo, which loads the model."""
    reply = requests.post(f"{function.url}/predict", data=photo, headers=_JPEG, timeout=_TIMEOUT_S)
    assert reply.status_code == 200, f"{reply.text}\n{function.log[-4000:]}"
    return reply.json()


def test_the_image_becomes_ready(function: Container) -> None:
    assert _readiness(function, 200)["state"] == "ready"


def test_the_same_boxes_are_found(answered: Any, reference: Any) -> None:
    agree(reference["predictions"], answered["predictions"])


def test_the_reply_says_where_the_model_ran(answered: Any, variant: Variant) -> None:
    assert answered["backend"] == ("triton" if variant.runtime == EXTERNAL else variant.runtime)


@pytest.mark.parametrize("case", _FAILURES)
def test_a_failure_is_told_as_json_with_nothing_of_the_inside(case: str, function: Container, photo: bytes) -> None:
    path, given, status = _FAILURES[case]
    bodies = {"cut": photo[: len(photo) // 2], "photo": photo, "large": bytes(_MAX_BODY + 1)}
    body = bodies.get(given["data"], given["data"])
    reply = requests.post(function.url + path, data=body, headers=given["headers"], timeout=_TIMEOUT_S)
    assert reply.status_code == status, reply.text
    check_failure(reply.json()["error"], reply.headers)
    assert not [place for place in _PLACES if place in reply.text]


def test_the_version_is_the_one_that_was_built(function: Container) -> None:
    built = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    told = requests.get(f"{function.url}/version", timeout=_TIMEOUT_S).json()
    assert (told["version"], told["git_sha"]) == (building.version(), built.stdout.strip())


def test_a_picture_of_12_megapixels_fits_in_little_memory(function: Container, large_photo: bytes) -> None:
    headers = {"Content-Type": "image/png"}
    reply = requests.post(f"{function.url}/predict", data=large_photo, headers=headers, timeout=_TIMEOUT_S)
    assert (reply.status_code, function.killed_for_memory) == (200, False), reply.text


def test_the_image_finds_itself_healthy(function: Container) -> None:
    function.wait_until_healthy()


def test_vertex_names_the_port_and_the_routes(
    functions: Functions, asked: Callable[[str], Variant], photo: bytes
) -> None:
    named = {"AIP_HTTP_PORT": "9123", "AIP_HEALTH_ROUTE": "/v1/well", "AIP_PREDICT_ROUTE": "/v1/ask"}
    body = {"instances": [{"image_base64": b64encode(photo).decode()}] * 2, "parameters": {"max_predictions": 1}}
    with functions.running(asked("vertex-onnx"), named) as container:
        reply = requests.post(f"{container.url}/v1/ask", json=body, timeout=_TIMEOUT_S)
        assert [len(one["predictions"]) for one in reply.json()["predictions"]] == [1, 1]
        assert requests.get(f"{container.url}/v1/well", timeout=_TIMEOUT_S).status_code == 200
        container.wait_until_healthy()


def test_azure_starts_the_image_as_any_other_host_does(functions: Functions, asked: Callable[[str], Variant]) -> None:
    # In Azure, which names its instance, the worker takes the packages' place from itself and not from the image.
    with functions.running(asked("azure-onnx"), {"WEBSITE_INSTANCE_ID": "one"}) as container:
        assert _readiness(container, 200)["state"] == "ready"


def test_the_external_image_is_not_ready_before_its_model_server_is_there(
    engine: Engine, images: Images, functions: Functions, asked: Callable[[str], Variant]
) -> None:
    image, environ = images.function(asked("google-external")), {"THINLENS_BACKEND_URL": "http://triton-tensor:8000"}
    with engine.network() as network, engine.running(image, 8080, environ, ["--network", network]) as function:
        function.wait_until_answering()
        before = requests.get(f"{function.url}/ready", timeout=_TIMEOUT_S).status_code
        with functions.triton("tensor", network):
            assert (before, _readiness(function, 200)["state"]) == (503, "ready")


def _readiness(function: Container, status: int) -> Any:
    """What /ready says once it says `status`, or after a while."""
    ends_at = monotonic() + _WAKE_S
    while True:
        reply = requests.get(f"{function.url}/ready", timeout=_TIMEOUT_S)
        if reply.status_code == status or monotonic() > ends_at:
            return reply.json()
        sleep(0.1)
