"""What the images weigh against docker/budget.toml, and how fast they wake; both tables are printed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.container_images import ASKED, PREFIX, Images
from tests.containers import Engine
from tests.servers import ROOT

pytestmark = pytest.mark.images

Command: TypeAlias = Callable[..., int]

_COMMAND_S = 1800.0
_ROUNDS = "2"
# Licences are often equal, and each stays beside what it is of.
_LARGE_BYTES = 50_000
# What the smallest images are small by.
_LEFT_OUT = {"numpy", "numpy.libs", "PIL", "pillow.libs", "onnxruntime", "tritonclient", "torch", "tensorflow"}


@pytest.fixture(scope="module")
def command(images: Images, request: pytest.FixtureRequest) -> Command:
    """Runs a command of docker/images.py; what it writes is shown whatever pytest captures."""
    for variant in ASKED:
        images.function(variant)
    names = [variant.name for variant in ASKED]
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def run(*words: str) -> int:
        asked = [sys.executable, "-m", "docker.images", *words, "--tag-prefix", PREFIX, *names]
        with capture.global_and_fixture_disabled():
            print()  # noqa: T201
            return subprocess.run(asked, check=False, cwd=ROOT, timeout=_COMMAND_S).returncode

    return run


@pytest.fixture(scope="module")
def sizes(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[Any]]:
    """The exit status, and what is said of each image."""
    folder = tmp_path_factory.mktemp("sizes")
    status = command("sizes", "--layers", "--into", str(folder))
    return status, json.loads((folder / "sizes.json").read_text(encoding="utf-8"))


def test_no_image_exceeds_its_budget(sizes: tuple[int, list[Any]]) -> None:
    status, found = sizes
    assert (status, len(found)) == (0, len(ASKED))


def test_no_image_holds_a_large_file_twice(sizes: tuple[int, list[Any]]) -> None:
    twice = {
        one["name"]: [each for each in one["duplicates"] if each["wasted_bytes"] > _LARGE_BYTES] for one in sizes[1]
    }
    assert {name: each for name, each in twice.items() if each} == {}


def test_images_that_forward_the_picture_as_it_came_hold_nothing_that_reads_one(sizes: tuple[int, list[Any]]) -> None:
    encoded = {one["name"]: set(one["packages_mb"]) & _LEFT_OUT for one in sizes[1] if "encoded" in one["name"]}
    assert encoded == {variant.name: set() for variant in ASKED if "encoded" in variant.name}


def test_an_image_that_is_not_built_is_named(engine: Engine) -> None:
    asked = [sys.executable, "-m", "docker.images", "sizes", "google-onnx", "--tag-prefix", "thinlens-nobody"]
    done = subprocess.run(asked, check=False, cwd=ROOT, capture_output=True, text=True, timeout=_COMMAND_S)
    assert (done.returncode, "not built: thinlens-nobody:google-onnx" in done.stderr) == (2, True)


def test_every_image_wakes_and_answers(command: Command, images: Images, tmp_path: Path) -> None:
    beside = ["--server-image", images.triton("tensor").tag, "--server-image-encoded", images.triton("encoded").tag]
    assert command("cold-start", "--rounds", _ROUNDS, "--into", str(tmp_path), *beside) == 0
    found = json.loads((tmp_path / "cold.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in found["images"]] == [variant.name for variant in ASKED]
