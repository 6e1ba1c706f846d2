"""The compose file: each profile comes up by one command and finds the same boxes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import requests

from tests import containers
from tests.agreement import agree
from tests.containers import Engine
from tests.servers import free_port

pytestmark = pytest.mark.images

_TIMEOUT_S = 60.0
_BUILD_S = 600.0
_FILE = ("compose", "-f", "docker/compose.yaml")


@contextmanager
def _up(engine: Engine, profile: str, told: dict[str, str]) -> Iterator[str]:
    """The URL of the function of a profile, started under names of its own."""
    port = free_port()
    named = {"COMPOSE_PROJECT_NAME": f"thinlens-test-{port}", "PORT": str(port)}
    bases = {"TRITON_IMAGE": containers.TRITON_STAND_IN, "PLATFORM": "python"}
    composed = replace(engine, environ={**engine.environ, **bases, **named, **told})
    compose = (*_FILE, "--profile", profile)
    try:
        composed.docker(*compose, "up", "--build", "--wait", "--detach", limit_s=_BUILD_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        composed.docker(*compose, "down", "--volumes")


@pytest.mark.parametrize("profile", ["embedded", "external", "external-gpu"])
def test_the_profile_is_valid(profile: str, engine: Engine) -> None:
    assert not engine.docker(*_FILE, "--profile", profile, "config", "--quiet")


class Case(NamedTuple):
    """A profile, and how the function in it forwards."""

    profile: str
    forward: str = "tensor"


_CASES = [
    Case("embedded"),
    Case("external"),
    Case("external", "encoded"),
]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"{case.profile}-{case.forward}")
def test_one_command_brings_a_profile_up(case: Case, engine: Engine, reference: Any, photo: bytes) -> None:
    containers.build_triton_stand_in()
    tag = f"thinlens-test:compose-{case.profile}-{case.forward}"  # the variant's own would become this one
    told = {
        "EMBEDDED_IMAGE": tag,
        "EXTERNAL_IMAGE": tag,
        "MODELS_IMAGE": f"thinlens-test:compose-triton-{case.forward}",
    }
    told |= {"FORWARD": case.forward} if case.forward != "tensor" else {}
    with _up(engine, case.profile, told) as url:
        reply = requests.post(f"{url}/predict", data=photo, timeout=_TIMEOUT_S)
    agree(reference["predictions"], reply.json()["predictions"])
