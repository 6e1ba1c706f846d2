"""The container images: what is in them, and that they answer and stop as a host expects, with the model inside and
with the model on Triton in a container beside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from time import monotonic, sleep
from typing import Any, NamedTuple

import pytest
import requests

from tests import containers
from tests.containers import Container, Engine, Image
from tests.servers import free_port

pytestmark = pytest.mark.images

_TIMEOUT_S = 60.0
_WAKE_S = 30.0
_STOP_S = 8
_FRAMEWORKS = ("onnxruntime", "torch", "tensorflow", "ai_edge_litert")
_BUNDLE = "coco-ssd-mobilenet-v2"
_READS = "import importlib.util as found; print([name for name in {names!r} if found.find_spec(name)])"


class Images:
    """Every image, built on first use by what is written in docker/."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.built: list[Image] = []

    @cached_property
    def embedded(self) -> Image:
        return self._function("google-onnx")

    @cached_property
    def external(self) -> Image:
        return self._function("google-external", RUNTIME="external")

    @cached_property
    def azure(self) -> Image:
        return self._function("azure-onnx", CLOUD="azure", AZURE_IMAGE=containers.PYTHON_IMAGE)

    @cached_property
    def models(self) -> Image:
        return self._triton("triton", FORWARD="tensor")

    @cached_property
    def encoding_models(self) -> Image:
        return self._triton("triton-encoded", FORWARD="encoded")

    def table(self) -> str:
        rows = [
            f"{image.tag:32} {image.megabytes:6.0f} MB, made (in part from the cache) in {image.seconds:4.0f} s"
            for image in self.built
        ]
        stand_ins = sorted({image.stand_in for image in self.built if image.stand_in})
        said = [f"Built on STAND-INS of {', '.join(stand_ins)}, not on the official images."] if stand_ins else []
        return "\n".join(["", *rows, *said])

    def _function(self, tag: str, **arguments: str) -> Image:
        return self._build("function.Dockerfile", tag, arguments)

    def _triton(self, tag: str, **arguments: str) -> Image:
        containers.build_triton_stand_in()
        given = {"TRITON_IMAGE": containers.TRITON_STAND_IN, "PLATFORM": "python", **arguments}
        return self._build("model-server.Dockerfile", tag, given)

    def _build(self, dockerfile: str, tag: str, arguments: dict[str, str]) -> Image:
        image = self._engine.build(dockerfile, f"thinlens-test:{tag}", arguments)
        self.built.append(image)
        return image


class Answers(NamedTuple):
    state: str
    health: str
    reply: dict[str, Any]
    stopped: tuple[int, float]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with containers.engine() as found:
        yield found


@pytest.fixture(scope="module")
def images(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Images]:
    """The images; how large each is, and on what it was built, is printed whatever pytest captures."""
    found = Images(engine)
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(found.table())  # noqa: T201


@pytest.fixture(scope="module")
def embedded(engine: Engine, images: Images, photo: bytes) -> Answers:
    with engine.running(images.embedded, 8080) as function:
        return _asked(function, photo)


@pytest.fixture(scope="module", params=["tensor", "encoded"])
def external(request: pytest.FixtureRequest, engine: Engine, images: Images, photo: bytes) -> Answers:
    with (
        engine.network() as network,
        _triton(engine, images.models if request.param == "tensor" else images.encoding_models, network) as triton,
        engine.running(images.external, 8080, _forwarding(request.param), ["--network", network]) as function,
    ):
        triton.wait_until_healthy()
        return _asked(function, photo)


def _triton(engine: Engine, image: Image, network: str) -> Any:
    return engine.running(
        image, 8000, options=["--network", network, "--network-alias", "triton", "--shm-size", "256m"]
    )


def _forwarding(forward: str) -> dict[str, str]:
    return {"THINLENS_BACKEND_URL": "http://triton:8000", "THINLENS_FORWARD": forward}


def _asked(function: Container, photo: bytes) -> Answers:
    """What a host and a caller see of a container from its start to its end."""
    function.wait_until_answering()
    state = _state(function, "ready")
    reply = requests.post(f"{function.url}/predict", photo, timeout=_TIMEOUT_S)
    assert reply.status_code == 200, f"{reply.text}\n{function.log[-4000:]}"
    function.wait_until_healthy()
    return Answers(state, function.health, reply.json(), function.stop(_STOP_S))


def _state(function: Container, wanted: str) -> str:
    """What /ready says once it says `wanted`, or after a while."""
    ends_at = monotonic() + _WAKE_S
    while True:
        state: str = requests.get(f"{function.url}/ready", timeout=_TIMEOUT_S).json()["state"]
        if state == wanted or monotonic() > ends_at:
            return state
        sleep(0.1)


def _boxes(reply: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The predictions of a reply as pytest compares them: scores to 1e-3, boxes to half a pixel."""
    return [
        (one["label"], pytest.approx(one["score"], abs=1e-3), pytest.approx(one["box"], abs=0.5))
        for one in reply["predictions"]
    ]


def _found(reply: dict[str, Any]) -> list[tuple[str, float, list[float]]]:
    return [(one["label"], one["score"], one["box"]) for one in reply["predictions"]]


def test_the_external_image_is_built_without_a_stage_that_installs_a_framework(images: Images) -> None:
    installing = {stage for stage in images.external.stages if stage.startswith("deps-")}
    assert installing == {"deps-external"}


def test_the_embedded_image_is_built_without_the_stages_of_other_frameworks(images: Images) -> None:
    installing = {stage for stage in images.embedded.stages if stage.startswith("deps-")}
    assert installing == {"deps-onnx"}


def test_the_external_image_has_no_framework_to_import(engine: Engine, images: Images) -> None:
    assert engine.asked(images.external, "python", "-c", _READS.format(names=_FRAMEWORKS)) == "[]"


def test_the_external_image_holds_what_model_json_says_and_no_weights(engine: Engine, images: Images) -> None:
    assert _models(engine, images.external) == {"LICENSE", "model.json"}


def test_the_embedded_image_holds_its_weights(engine: Engine, images: Images) -> None:
    assert _models(engine, images.embedded) == {"LICENSE", "model.json", "model.onnx"}


def _models(engine: Engine, image: Image) -> set[str]:
    found = engine.asked(image, "find", f"/app/model_server/models/{_BUNDLE}", "-type", "f").splitlines()
    return {path.rpartition("/")[2] for path in found}


def test_the_images_do_not_run_as_root(engine: Engine, images: Images) -> None:
    found = [engine.asked(image, "id", "-u") for image in (images.embedded, images.external, images.models)]
    assert "0" not in found


def test_the_embedded_image_answers_from_a_read_only_root(embedded: Answers) -> None:
    assert [one["label"] for one in embedded.reply["predictions"]].count("person") > 0


def test_the_external_image_finds_the_same_boxes_through_triton(embedded: Answers, external: Answers) -> None:
    assert _found(external.reply) == _boxes(embedded.reply)


def test_the_reply_says_where_the_model_ran(embedded: Answers, external: Answers) -> None:
    assert (embedded.reply["backend"], external.reply["backend"]) == ("onnx", "triton")


def test_the_images_become_ready_and_healthy(embedded: Answers, external: Answers) -> None:
    assert [(one.state, one.health) for one in (embedded, external)] == [("ready", "healthy")] * 2


def test_sigterm_ends_the_images_in_time(embedded: Answers, external: Answers) -> None:
    for status, seconds in (embedded.stopped, external.stopped):
        assert (status, seconds < _STOP_S) == (0, True)


def test_the_external_image_is_not_ready_before_its_model_server_is_there(engine: Engine, images: Images) -> None:
    with (
        engine.network() as network,
        engine.running(images.external, 8080, _forwarding("tensor"), ["--network", network]) as function,
    ):
        function.wait_until_answering()
        before = requests.get(f"{function.url}/ready", timeout=_TIMEOUT_S)
        with _triton(engine, images.models, network):
            assert (before.status_code, _state(function, "ready")) == (503, "ready")


def test_the_port_of_vertex_is_the_one_listened_on(engine: Engine, images: Images) -> None:
    with engine.running(images.embedded, 9123, {"AIP_HTTP_PORT": "9123"}) as function:
        function.wait_until_answering()
        function.wait_until_healthy()


def test_the_image_for_azure_holds_the_door_and_its_packages(engine: Engine, images: Images) -> None:
    root, packages = "/home/site/wwwroot", "/home/site/wwwroot/.python_packages/lib/site-packages"
    # The Functions host itself puts both on the path; it is not in the stand-in.
    code = f"import sys; sys.path[:0] = [{root!r}, {packages!r}]; import function_app; print(function_app.app)"
    assert "FunctionApp" in engine.asked(images.azure, "python", "-c", code)


@pytest.mark.parametrize("profile", ["embedded", "external"])
def test_compose_starts_a_profile_by_one_command(profile: str, engine: Engine, embedded: Answers, photo: bytes) -> None:
    containers.build_triton_stand_in()
    port = free_port()
    environ = {
        "COMPOSE_PROJECT_NAME": f"thinlens-test-{port}",
        "PORT": str(port),
        "TRITON_IMAGE": containers.TRITON_STAND_IN,
        "PLATFORM": "python",
        "EMBEDDED_IMAGE": "thinlens-test:google-onnx",
        "EXTERNAL_IMAGE": "thinlens-test:google-external",
        "MODELS_IMAGE": "thinlens-test:triton",
    }
    composed = replace(engine, environ={**engine.environ, **environ})
    compose = ("compose", "-f", "docker/compose.yaml", "--profile", profile)
    try:
        composed.docker(*compose, "up", "--build", "--wait", "--detach", limit_s=600)
        reply = requests.post(f"http://127.0.0.1:{port}/predict", photo, timeout=_TIMEOUT_S)
        assert _found(reply.json()) == _boxes(embedded.reply)
    finally:
        composed.docker(*compose, "down", "--volumes")
