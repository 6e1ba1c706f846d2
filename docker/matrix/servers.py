"""The model servers that external images need beside them: Triton in a container, one for each way of forwarding."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from docker.matrix.building import BUNDLES
from docker.matrix.containers import container, network
from docker.matrix.engine import Engine, asked, engine_script, stand_in
from docker.matrix.variants import EXTERNAL, Variant

_FORWARDED = {"tensor": "tensors", "encoded": "the encoded picture"}
TRITON_STAND_IN = "thinlens/triton-stand-in:2.51.0"
_DOCKERFILE = "docker/model-server.Dockerfile"
_HTTP, _GRPC = 8000, 8001
_BUILD_S = 1800.0


@dataclass(frozen=True, slots=True)
class Beside:
    """The options of `docker create` with which external variants find their server, and what has to be said of it."""

    options: Mapping[str, Sequence[str]]
    notes: list[str]


@contextmanager
def servers(engine: Engine, variants: Sequence[Variant], given: Mapping[str, str]) -> Iterator[Beside]:
    """Starts what `variants` need.

    `given` names images by way of forwarding; where it names none, one is built on a stand-in of NVIDIA's.
    """
    external = [variant for variant in variants if variant.runtime == EXTERNAL]
    notes = []
    with ExitStack() as running:
        if external:
            net = running.enter_context(network(engine, f"thinlens-measured-{os.getpid()}"))
        for forward in _FORWARDED:
            if any(_forward(variant) == forward for variant in external):
                image = given.get(forward) or _build(engine, forward)
                running.enter_context(_started(engine, image, net, forward))
                notes += _notes(engine, image, forward)
        yield Beside({variant.name: _options(variant, net) for variant in external}, notes)


def _notes(engine: Engine, image: str, forward: str) -> list[str]:
    what = f"those that forward {_FORWARDED[forward]} had {image} beside them, up and warm"
    return [f"{what}, on a STAND-IN of Triton's image" if stand_in(engine.inspected(image)) else what]


def _forward(variant: Variant) -> str:
    return variant.build_arguments["FORWARD"]


def _options(variant: Variant, net: str) -> list[str]:
    by_grpc = variant.build_arguments["PROTOCOL"] == "grpc"
    url = f"grpc://{_forward(variant)}:{_GRPC}" if by_grpc else f"http://{_forward(variant)}:{_HTTP}"
    return ["--network", net, "--env", f"THINLENS_BACKEND_URL={url}"]


@contextmanager
def _started(engine: Engine, image: str, net: str, forward: str) -> Iterator[None]:
    options = ["--network", net, "--network-alias", forward, "--shm-size", "256m"]
    with container(engine, image, _HTTP, options) as server:
        server.start()
        server.wait_for("GET", "/v2/health/ready")
        yield


def _build(engine: Engine, forward: str) -> str:
    """An image of Triton with the bundles inside; from its cache where it was built before."""
    engine_script("triton")
    tag = f"thinlens-models:{forward}"
    arguments = {
        "TRITON_IMAGE": TRITON_STAND_IN, "PLATFORM": "python", "FORWARD": forward, "BUNDLES": asked("BUNDLES", BUNDLES),
    }  # fmt: skip
    words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    engine.docker("build", "--quiet", "--file", _DOCKERFILE, "--tag", tag, *words, ".", limit_s=_BUILD_S)
    return tag
