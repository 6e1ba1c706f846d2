"""The images of the model servers: how they are built, that the function answers through them, and how they stop."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from time import sleep
from typing import Any, NamedTuple

import pytest
import requests

from docker.matrix.variants import chosen
from tests import containers
from tests.agreement import agree
from tests.container_images import Images
from tests.containers import Container, Engine, Image

pytestmark = pytest.mark.images

_STAND_IN = "thinlens/tfserving-stand-in:2.21.0"
_DOCKERFILE = "model-server.Dockerfile"
_URLS = {"google-external": "http://models:8501", "google-external-grpc": "grpc://models:8500"}
_MODEL = "coco-ssd-mobilenet-v2.detector"
_TIMEOUT_S = 60.0
_BUILD_S = 1800.0
_STOP_S = 20
_SHA = "0123456789abcdef0123456789abcdef01234567"
_TOLD = "org.opencontainers.image."


@pytest.fixture(scope="module")
def tfserving(engine: Engine, request: pytest.FixtureRequest) -> Image:
    """TensorFlow Serving's image, on the stand-in for the server, which is said whatever pytest captures."""
    done = subprocess.run(
        [containers.ENGINE, "tfserving"], check=False, capture_output=True, text=True, timeout=_BUILD_S
    )
    assert done.returncode == 0, done.stderr
    arguments = {"SERVER": "tfserving", "TFSERVING_IMAGE": _STAND_IN, "GIT_SHA": _SHA, "VERSION": "9.8.7"}
    image = engine.build(_DOCKERFILE, "thinlens-test:tfserving", arguments)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{image.tag}: {image.megabytes:.0f} MB, built on a STAND-IN of {image.stand_in}")  # noqa: T201
    return image


@pytest.fixture(scope="module")
def triton(images: Images) -> Image:
    return images.triton("tensor")


@pytest.fixture(scope="module")
def network(engine: Engine) -> Iterator[str]:
    with engine.network() as name:
        yield name


class Served(NamedTuple):
    """TensorFlow Serving under way, and the network on which it is called `models`."""

    container: Container
    network: str


@pytest.fixture(scope="module")
def served(engine: Engine, tfserving: Image, network: str) -> Iterator[Served]:
    with _serving(engine, tfserving, network) as container:
        container.wait_until_healthy()
        yield Served(container, network)


@contextmanager
def _serving(engine: Engine, image: Image, network: str, alias: str = "models") -> Iterator[Container]:
    with engine.running(image, 8501, options=["--network", network, "--network-alias", alias]) as container:
        yield container


def test_only_the_stages_of_the_chosen_server_are_built(triton: Image, tfserving: Image) -> None:
    of_triton = {stage for stage in tfserving.stages if "triton" in stage or stage.startswith("packages-")}
    of_tfserving = {stage for stage in triton.stages if "tfserving" in stage}
    assert (of_triton, of_tfserving) == (set(), set())


def test_no_base_image_of_the_other_server_is_asked_for(triton: Image, tfserving: Image) -> None:
    assert ("tritonserver" in tfserving.log, "tensorflow/serving" in triton.log) == (False, False)


def test_the_labels_say_what_the_image_is(engine: Engine, tfserving: Image) -> None:
    labels = json.loads(engine.docker("image", "inspect", "--format", "{{json .Config.Labels}}", tfserving.tag))
    found = {name.removeprefix(_TOLD): value for name, value in labels.items() if name.startswith(_TOLD)}
    assert {**found, "description": ""} == {
        "title": "thinlens-models",
        "version": "9.8.7",
        "revision": _SHA,
        "licenses": "Apache-2.0",
        "description": "",
    }


def test_the_servers_do_not_run_as_root(engine: Engine, triton: Image, tfserving: Image) -> None:
    users = [engine.docker("image", "inspect", "--format", "{{.Config.User}}", one.tag) for one in (triton, tfserving)]
    assert users == ["1000:1000", "10001:10001"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"SERVER": "triton", "PLATFORM": "python", "DEVICE": "gpu"}, "PLATFORM=python runs on the processor"),
        ({"SERVER": "triton", "BUNDLES": ""}, "BUNDLES: expected names of bundles"),
        ({"SERVER": "tfserving", "BUNDLES": "nothing"}, "nothing: there is no such folder"),
    ],
)
def test_a_choice_that_cannot_be_built_is_told_in_a_line(
    arguments: dict[str, str], message: str, engine: Engine, triton: Image, tfserving: Image
) -> None:
    bases = {"TRITON_IMAGE": containers.TRITON_STAND_IN, "TFSERVING_IMAGE": _STAND_IN}
    with pytest.raises(AssertionError, match=message):
        engine.build(_DOCKERFILE, "thinlens-test:none", bases | arguments)


@pytest.mark.parametrize("name", _URLS)
def test_the_function_finds_the_same_boxes_through_tensorflow_serving(
    name: str, served: Served, images: Images, reference: Any, photo: bytes
) -> None:
    settings = {"THINLENS_BACKEND": "tfserving", "THINLENS_BACKEND_URL": _URLS[name]}
    image = images.function(chosen([name])[0])
    with served.container.engine.running(image, 8080, settings, ["--network", served.network]) as function:
        function.wait_until_answering()
        reply = requests.post(f"{function.url}/predict", data=photo, timeout=_TIMEOUT_S)
    assert reply.status_code == 200, f"{reply.text}\n{served.container.log[-4000:]}"
    assert reply.json()["backend"] == "tfserving"
    agree(reference["predictions"], reply.json()["predictions"])


def test_tensorflow_serving_is_not_healthy_before_its_models_are_there(engine: Engine, tfserving: Image) -> None:
    asked = ["--entrypoint", "bash", tfserving.tag, "-c", "thinlens-tfserving --healthy || echo not healthy"]
    assert engine.docker("run", "--rm", "--network", "none", *asked) == "not healthy"


def test_flags_of_the_servers_own_may_follow_the_image(engine: Engine, tfserving: Image) -> None:
    with pytest.raises(AssertionError, match="unrecognized arguments: --no_such_flag"):
        engine.docker("run", "--rm", tfserving.tag, "--no_such_flag")


def test_a_request_under_way_is_answered_before_tensorflow_serving_stops(
    engine: Engine, tfserving: Image, network: str
) -> None:
    with _serving(engine, tfserving, network, "stopping") as container:
        container.wait_until_healthy()
        with _half_sent(container) as (connection, rest):
            container.terminate()
            sleep(1)
            connection.sendall(rest)
            answer = HTTPResponse(connection)
            answer.begin()
            assert (answer.status, b"boxes" in answer.read()) == (200, True)
        assert container.wait(_STOP_S) == 0


@contextmanager
def _half_sent(container: Container) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection on which half of a request has gone, and the other half."""
    body = json.dumps({"inputs": [[[[0, 0, 0]] * 300] * 300]}).encode()
    head = f"POST /v1/models/{_MODEL}:predict HTTP/1.1\r\nHost: models\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", container.port), timeout=_TIMEOUT_S) as connection:
        connection.sendall(head + body[:100])
        yield connection, body[100:]


@pytest.mark.parametrize("kind", ["triton", "tfserving"])
def test_an_idle_server_stops_at_once(kind: str, engine: Engine, network: str, request: pytest.FixtureRequest) -> None:
    image: Image = request.getfixturevalue(kind)
    port = {"triton": 8000, "tfserving": 8501}[kind]
    with engine.running(image, port, options=["--network", network, "--shm-size", "256m"]) as container:
        container.wait_until_healthy()
        status, seconds = container.stop(_STOP_S)
    assert (status, seconds < 8) == (0, True)
