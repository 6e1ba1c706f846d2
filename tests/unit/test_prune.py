"""docker/prune.py: what goes out of installed packages, and what stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docker.prune import prune
from tests.servers import ROOT


def _made(folder: Path, *files: str) -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    return folder


def _left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_tests_headers_stubs_and_byte_code_go(tmp_path: Path) -> None:
    files = ("numpy/ma/tests/test_core.py", "numpy/_core/include/numpy/a.h", "numpy/a.pyi", "numpy/__pycache__/a.pyc")
    prune(_made(tmp_path, "numpy/__init__.py", *files))
    assert _left(tmp_path) == {"numpy/__init__.py"}


def test_tests_of_packages_that_import_their_own_stay(tmp_path: Path) -> None:
    prune(_made(tmp_path, "tensorflow/python/tests/needed.py", "tensorflow/test/__init__.py"))
    assert _left(tmp_path) == {"tensorflow/python/tests/needed.py", "tensorflow/test/__init__.py"}


def test_licences_stay(tmp_path: Path) -> None:
    files = ("numpy-2.dist-info/licenses/LICENSE.txt", "onnxruntime/ThirdPartyNotices.txt")
    prune(_made(tmp_path, *files))
    assert _left(tmp_path) == set(files)


def test_the_second_onnx_runtime_goes_where_no_gpu_is_meant(tmp_path: Path) -> None:
    prune(_made(tmp_path, "onnxruntime/capi/libonnxruntime.so.1.31.1", "onnxruntime/capi/state.so"))
    assert _left(tmp_path) == {"onnxruntime/capi/state.so"}


def test_it_stays_beside_the_provider_for_gpus(tmp_path: Path) -> None:
    files = ("libonnxruntime.so.1.31.1", "libonnxruntime_providers_cuda.so")
    prune(_made(tmp_path, *(f"onnxruntime/capi/{file}" for file in files)))
    assert {path.rpartition("/")[2] for path in _left(tmp_path)} == set(files)


def test_protobuf_stays_for_those_who_import_it(tmp_path: Path) -> None:
    prune(_made(tmp_path, "google/protobuf/message.py", "tritonclient/__init__.py"))
    assert "google/protobuf/message.py" in _left(tmp_path)


@pytest.mark.parametrize("user", ["tensorflow", "tritonclient", "torch"])
def test_packaging_stays_for_those_who_import_it(user: str, tmp_path: Path) -> None:
    prune(_made(tmp_path, "packaging/version.py", f"{user}/__init__.py"))
    assert "packaging/version.py" in _left(tmp_path)


def test_files_of_equal_bytes_become_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("the same")
    prune(tmp_path)
    assert (tmp_path / "a").stat().st_ino == (tmp_path / "b").stat().st_ino


def test_of_the_commands_only_python_and_gunicorn_are_left(tmp_path: Path) -> None:
    commands = _made(tmp_path / "bin", "python3.11", "gunicorn", "f2py", "activate")
    (tmp_path / "packages").mkdir()
    words = [sys.executable, str(ROOT / "docker" / "prune.py"), str(tmp_path / "packages"), str(commands)]
    subprocess.run(words, check=True)
    assert _left(commands) == {"python3.11", "gunicorn"}
