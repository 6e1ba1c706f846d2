"""Every image of the matrix, built once by what is written in docker/, and Triton beside those that need it.

TEST_VARIANTS names the variants to test, all of them where it is empty. Where TEST_IMAGES is set, TEST_IMAGES:VARIANT
is built already and is tested as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from docker.matrix import building
from docker.matrix.variants import EXTERNAL, Variant, chosen
from tests import containers
from tests.containers import Container, Engine, Image

ASKED = chosen(os.environ.get("TEST_VARIANTS", "").split())
BUILT = os.environ.get("TEST_IMAGES", "")
PREFIX = BUILT or "thinlens-test"
# Consumption's memory on Azure, whose host needs some of it; else what is small for the clouds.
_MEMORY_MB = {"azure": 1536, "onnx": 512, EXTERNAL: 256, "torchscript": 1536, "tensorflow": 1536}
_PROTOCOLS = {"http": "http://{host}:8000", "grpc": "grpc://{host}:8001"}


class Images:
    """The images, each built on first use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._built: dict[str, Image] = {}

    def function(self, variant: Variant) -> Image:
        if BUILT and variant in ASKED:
            return self._engine.image(variant.tag(BUILT))
        if variant.cloud == "azure":
            containers.build_azure_stand_in()
        return self._build("function.Dockerfile", variant.name, options=building.options(variant))

    def triton(self, forward: str) -> Image:
        containers.build_triton_stand_in()
        arguments = {"TRITON_IMAGE": containers.TRITON_STAND_IN, "PLATFORM": "python", "FORWARD": forward}
        return self._build("model-server.Dockerfile", f"triton-{forward}", arguments)

    def table(self) -> str:
        """How large each is and how long it took, and what it was built on."""
        built = self._built.values()
        rows = [
            f"{image.tag:40} {image.megabytes:6.0f} MB, made (in part from the cache) in {image.seconds:4.0f} s"
            for image in built
        ]
        stand_ins = sorted({image.stand_in for image in built if image.stand_in})
        said = [f"Built on STAND-INS of {', '.join(stand_ins)}, not on the official images."] if stand_ins else []
        return "\n".join(["", *rows, *said])

    def _build(
        self, dockerfile: str, name: str, arguments: Mapping[str, str] | None = None, options: list[str] | None = None
    ) -> Image:
        if name not in self._built:
            self._built[name] = self._engine.build(dockerfile, f"{PREFIX}:{name}", arguments or {}, options or [])
        return self._built[name]


class Functions:
    """Containers of the variants, and the model servers that some of them need, on one network."""

    def __init__(self, engine: Engine, images: Images) -> None:
        self._engine = engine
        self._images = images
        self._stack = ExitStack()
        self._network: str | None = None
        self._serving: dict[str, Container] = {}

    @contextmanager
    def running(self, variant: Variant, environ: Mapping[str, str] | None = None) -> Iterator[Container]:
        """A container of `variant` with little memory and one processor; its model server is ready."""
        image = self._images.function(variant)
        limits = ["--memory", f"{memory_mb(variant)}m", "--cpus", "1"]
        given, options = dict(environ or {}), limits
        if variant.runtime == EXTERNAL:
            given |= self.serve(variant)
            options = [*limits, "--network", self.network]
        port = int(given.get("AIP_HTTP_PORT", variant.port))
        with self._engine.running(image, port, given, options) as container:
            container.wait_until_answering()
            yield container

    def serve(self, variant: Variant) -> dict[str, str]:
        """Starts Triton for `variant` where it is not yet running, and says what to tell the function."""
        named = dict(variant.arguments)
        forward = named["FORWARD"]
        if forward not in self._serving:
            self._serving[forward] = self._stack.enter_context(self.triton(forward))
            self._serving[forward].wait_until_healthy()
        return {"THINLENS_BACKEND_URL": _PROTOCOLS[named["PROTOCOL"]].format(host=_host(forward))}

    @contextmanager
    def triton(self, forward: str, network: str | None = None) -> Iterator[Container]:
        options = ["--network", network or self.network, "--network-alias", _host(forward), "--shm-size", "256m"]
        with self._engine.running(self._images.triton(forward), 8000, options=options) as container:
            yield container

    @property
    def network(self) -> str:
        if self._network is None:
            self._network = self._stack.enter_context(self._engine.network())
        return self._network

    def close(self) -> None:
        self._stack.close()


def memory_mb(variant: Variant) -> int:
    return _MEMORY_MB[variant.cloud] if variant.cloud in _MEMORY_MB else _MEMORY_MB[variant.runtime]


def _host(forward: str) -> str:
    return f"triton-{forward}"
