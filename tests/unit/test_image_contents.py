"""What an image is given: the packages of its requirements, the files of its bundles."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT

_WEIGHTS = {"onnx": "model.onnx", "torchscript": "model.pt"}


def _script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docker" / name), *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)


def _packages(cloud: str, runtime: str) -> set[str]:
    lines = _script("requirements.py", cloud, runtime).stdout.splitlines()
    return {re.split(r"[^a-z0-9._-]", line)[0] for line in lines}


def test_external_images_install_what_embedded_ones_do_but_the_framework() -> None:
    assert _packages("google", "onnx") - _packages("google", "external") == {"onnxruntime"}


def test_an_image_has_the_door_of_its_cloud_only() -> None:
    google, azure = _packages("google", "external"), _packages("azure", "external")
    assert (google - azure, azure - google) == ({"functions-framework"}, {"azure-functions"})


@pytest.mark.parametrize(("runtime", "framework"), [("torchscript", "torch"), ("tensorflow", "tensorflow-cpu")])
def test_other_frameworks_come_from_their_own_requirements(runtime: str, framework: str) -> None:
    assert _packages("google", runtime) - _packages("google", "external") == {framework}


def test_the_ranges_are_those_of_the_requirements_file() -> None:
    whole = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert set(_script("requirements.py", "vertex", "onnx").stdout.splitlines()) <= set(whole)


def test_an_unknown_choice_is_named() -> None:
    assert _script("requirements.py", "google", "jax").stderr.startswith("RUNTIME: expected one of onnx, ")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with one bundle, `own`, that has weights for two backends."""
    folder = tmp_path / "models" / "own"
    folder.mkdir(parents=True)
    artifacts = {}
    for backend, file in _WEIGHTS.items():
        (folder / file).write_text(backend)
        artifacts[backend] = {"file": file, "sha256": hashlib.sha256(backend.encode()).hexdigest()}
    (folder / "model.json").write_text(json.dumps({"networks": {"detector": {"artifacts": artifacts}}}))
    (folder / "labels.txt").write_text("cat\n")
    return folder.parent


@pytest.mark.parametrize(
    ("runtime", "weights"), [("onnx", {"model.onnx"}), ("torchscript", {"model.pt"}), ("external", set())]
)
def test_an_image_holds_the_weights_of_its_runtime_only(
    runtime: str, weights: set[str], models: Path, tmp_path: Path
) -> None:
    _script("bundles.py", runtime, str(models), str(tmp_path / "out"), "own")
    assert {path.name for path in (tmp_path / "out" / "own").iterdir()} == {"model.json", "labels.txt", *weights}


def test_weights_that_are_not_as_declared_stop_the_build(models: Path, tmp_path: Path) -> None:
    (models / "own" / "model.onnx").write_text("changed")
    done = _script("bundles.py", "onnx", str(models), str(tmp_path / "out"), "own")
    assert (done.returncode, "own: 'model.onnx': expected sha256" in done.stderr) == (1, True)


def test_missing_weights_stop_no_external_build(models: Path, tmp_path: Path) -> None:
    (models / "own" / "model.onnx").unlink()
    assert _script("bundles.py", "external", str(models), str(tmp_path / "out"), "own").returncode == 0


def test_a_bundle_that_the_runtime_cannot_run_stops_the_build(models: Path, tmp_path: Path) -> None:
    done = _script("bundles.py", "tensorflow", str(models), str(tmp_path / "out"), "own")
    assert (done.returncode, "no weights for 'tensorflow'" in done.stderr) == (1, True)


def test_an_unknown_bundle_stops_the_build(models: Path, tmp_path: Path) -> None:
    done = _script("bundles.py", "onnx", str(models), str(tmp_path / "out"), "other")
    assert (done.returncode, "no bundle 'other'" in done.stderr) == (1, True)
