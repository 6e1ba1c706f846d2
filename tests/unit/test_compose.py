"""What docker/compose.yaml and the Dockerfiles say, read without an engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import ROOT

_DOCKER = ROOT / "docker"
_ARGUMENT = re.compile(r"^ARG (\w+)(?:=(\S*))?", re.MULTILINE)
_FUNCTIONS = {"external": "triton", "external-gpu": "triton-gpu"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((_DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return found


def test_every_service_is_in_a_profile_of_its_own_choice(services: dict[str, Any]) -> None:
    profiles = {name: service["profiles"] for name, service in services.items()}
    assert profiles == {
        "embedded": ["embedded"],
        "external": ["external"],
        "triton": ["external"],
        "external-gpu": ["external-gpu"],
        "triton-gpu": ["external-gpu"],
    }


def test_every_service_is_confined(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_the_function_waits_for_a_healthy_model_server(function: str, services: dict[str, Any]) -> None:
    assert services[function]["depends_on"] == {_FUNCTIONS[function]: {"condition": "service_healthy"}}


def test_only_functions_are_published_and_only_to_this_machine(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    loopback = ["${BIND:-127.0.0.1}:${PORT:-8080}:8080"]
    assert published == dict.fromkeys(["embedded", "external", "external-gpu"], loopback)


def test_only_tritons_own_profile_reserves_a_gpu(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "deploy" in service] == ["triton-gpu"]


def test_every_build_argument_is_one_of_its_dockerfile(services: dict[str, Any]) -> None:
    for name, service in services.items():
        known = {match[1] for match in _ARGUMENT.finditer(_text(ROOT / service["build"]["dockerfile"]))}
        assert set(service["build"]["args"]) <= known, name


@pytest.mark.parametrize("path", sorted(_DOCKER.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_every_base_image_has_a_tag_that_does_not_move(path: Path) -> None:
    bases = {match[1]: match[2] for match in _ARGUMENT.finditer(_text(path)) if match[1].endswith("_IMAGE")}
    assert bases
    assert {name: base for name, base in bases.items() if not re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+", base)} == {}


def test_the_packages_of_tritons_models_are_those_of_the_embedded_image_without_numpy() -> None:
    own, embedded = _pins("triton.txt"), _pins("google/onnx-cpu.txt")
    assert {"msgspec", "onnxruntime", "pillow"} <= set(own)
    assert "numpy" not in own
    assert {name: embedded.get(name) for name in own} == own


def _pins(lock: str) -> dict[str, str]:
    """What a lock says of each package: its version and hashes."""
    blocks = re.split(r"\n(?=[\w])", _text(_DOCKER / "locks" / lock))
    return {block.partition("==")[0]: block.strip() for block in blocks[1:]}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
