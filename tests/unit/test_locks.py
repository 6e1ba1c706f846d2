"""docker/locks: what each image installs, and that it is what the requirements files say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docker.locks import DOORS, FILES, LOCKS, PYTHONS, chosen

_FRAMEWORKS = {"onnxruntime", "onnxruntime-gpu", "torch", "tensorflow", "tensorflow-cpu", "ai-edge-litert", "keras"}
_FRAMEWORK_OF = {
    "onnx-cpu": {"onnxruntime"},
    "onnx-gpu": {"onnxruntime-gpu"},
    "torchscript-cpu": {"torch"},
    "torchscript-gpu": {"torch"},
    "tensorflow-cpu": {"tensorflow-cpu", "keras"},
    "tensorflow-gpu": {"tensorflow", "keras"},
}
_PINNED = re.compile(r"[A-Za-z0-9._-]+==\S+( ; [^\\]+)?( \\)?")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")

every_lock = pytest.mark.parametrize(("door", "kind"), [(door, kind) for door in DOORS for kind in FILES])


def _path(door: str, kind: str) -> Path:
    return LOCKS / door / f"{kind}.txt"


def _pins(door: str, kind: str, python: str = "3.11") -> dict[str, str]:
    """The versions that the lock gives on a Linux of x86_64."""
    system = {"python_full_version": f"{python}.0", "python_version": python, "platform_machine": "x86_64"}
    system |= {"sys_platform": "linux", "platform_system": "Linux"}
    found: dict[str, str] = {}
    for line in _path(door, kind).read_text(encoding="utf-8").splitlines():
        if "==" in line and not line.startswith(("#", " ")):
            pin = Requirement(line.removesuffix("\\").strip())
            if pin.marker is None or pin.marker.evaluate(system):
                found[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    return found


@every_lock
def test_every_line_is_a_version_or_a_hash(door: str, kind: str) -> None:
    lines = _path(door, kind).read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if not (line.startswith("#") or _PINNED.fullmatch(line) or _HASH.fullmatch(line))]
    assert wrong == []


@every_lock
def test_every_version_has_a_hash(door: str, kind: str) -> None:
    text = _path(door, kind).read_text(encoding="utf-8")
    assert [block for block in re.split(r"\n(?=[^ #])", text)[1:] if "--hash" not in block] == []


@every_lock
@pytest.mark.parametrize("python", PYTHONS)
def test_the_versions_are_those_that_the_requirements_allow(door: str, kind: str, python: str) -> None:
    pins = _pins(door, kind, python)
    for line in chosen(door, kind):
        wanted = Requirement(line)
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier, line


@every_lock
def test_an_image_holds_its_own_framework_only(door: str, kind: str) -> None:
    assert set(_pins(door, kind)) & _FRAMEWORKS == _FRAMEWORK_OF.get(kind, set())


@every_lock
def test_an_image_holds_the_door_of_its_cloud_only(door: str, kind: str) -> None:
    doors = {*DOORS.values(), "functions-framework"}
    assert set(_pins(door, kind)) & doors == {DOORS[door]}


@pytest.mark.parametrize("door", DOORS)
def test_what_forwards_the_picture_as_it_came_holds_no_pixels(door: str) -> None:
    assert {"numpy", "pillow", "tritonclient"} & set(_pins(door, "external-encoded-http")) == set()


@pytest.mark.parametrize("door", DOORS)
def test_the_client_of_grpc_is_where_grpc_is_spoken(door: str) -> None:
    having = {kind for kind in FILES if "grpcio" in _pins(door, kind) and "tritonclient" in _pins(door, kind)}
    assert having == {"external-tensor-grpc"}


@pytest.mark.parametrize("door", DOORS)
def test_pytorch_for_the_processor_brings_no_cuda(door: str) -> None:
    found = set(_pins(door, "torchscript-cpu"))
    assert {name for name in found if name.startswith(("nvidia-", "cuda-", "triton"))} == set()
