"""The staged folder stands on its own: both doors run from it with nothing of the checkout in reach."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import servers
from tests.servers import Server

_BUNDLE = "coco-ssd-mobilenet-v2"
_ADDED = ["--optimise", "--profile", "--git-sha", "0123ABCDEF"]
_JPEG = {"Content-Type": "image/jpeg"}
_TIMEOUT_S = 30


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "stage"
    command = [sys.executable, "-m", "model_server", "stage", str(folder), "--bundle", _BUNDLE, *_ADDED]
    done = subprocess.run(
        command, cwd=servers.ROOT, env=servers.environ({}), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the packages of this one but the project itself, which a developer's has installed."""
    env = tmp_path_factory.mktemp("environment")
    venv.create(env, with_pip=False, symlinks=True)
    (target,) = env.glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lower().startswith(("__editable__", "__editable___", "thinlens")):
            (target / entry.name).symlink_to(entry)
    return env / "bin" / "python"


@pytest.fixture(scope="module")
def expected(live_server: str, photo: bytes) -> Any:
    """The predictions that the checkout gives."""
    return requests.post(f"{live_server}/predict", data=photo, headers=_JPEG, timeout=_TIMEOUT_S).json()["predictions"]


def _environ() -> dict[str, str]:
    return {name: value for name, value in servers.environ({}).items() if name != "PYTHONPATH"}


def _served(command: Callable[[int], list[str]], cwd: Path, photo: bytes) -> Any:
    """The predictions of the server that `command` starts on a port."""
    port = servers.free_port()
    with Server(command(port), port, _environ(), cwd) as server:
        return requests.post(f"{server.url}/predict", data=photo, headers=_JPEG, timeout=_TIMEOUT_S).json()[
            "predictions"
        ]


def test_the_environment_does_not_reach_the_checkout(python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(python), "-P", "-c", "import shared"], cwd=tmp_path, env=_environ(), capture_output=True, check=False
    )
    assert b"No module named 'shared'" in done.stderr


def test_the_folder_holds_what_both_clouds_look_for(staged: Path) -> None:
    files = {"function_app.py", "main.py", "host.json", "requirements.txt", "shared/web/static/index.html"}
    assert {name for name in files if not (staged / name).is_file()} == set()
    assert not (staged / "__init__.py").exists()


def test_google_serves_the_folder(staged: Path, python: Path, tmp_path: Path, photo: bytes, expected: Any) -> None:
    def command(port: int) -> list[str]:
        options = ["--source", str(staged / "main.py"), "--target", "predict", "--host", "127.0.0.1"]
        return [str(python), "-P", "-m", "functions_framework", *options, "--port", str(port)]

    assert _served(command, tmp_path, photo) == expected


def test_the_folder_says_what_was_built_and_what_it_takes(staged: Path, python: Path) -> None:
    port = servers.free_port()
    command = [str(python), "-P", "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "shared.web:application"]
    with Server(command, port, _environ(), staged) as server:
        built, model = (
            requests.get(f"{server.url}/{path}", timeout=_TIMEOUT_S).json() for path in ("version", f"models/{_BUNDLE}")
        )
    assert built["git_sha"] == "0123abcdef"
    assert model["profile"]["measured"][0]["size"] == [300, 300]


def test_a_plain_server_serves_the_folder(staged: Path, python: Path, photo: bytes, expected: Any) -> None:
    def command(port: int) -> list[str]:
        return [str(python), "-P", "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "shared.web:application"]

    assert _served(command, staged, photo) == expected


@pytest.mark.azure
def test_azures_worker_serves_the_folder(staged: Path, tmp_path: Path, photo: bytes, expected: Any) -> None:
    def command(port: int) -> list[str]:
        return [servers.azure_python(), "-P", str(servers.AZURE_HOST), str(staged), "--port", str(port)]

    assert _served(command, tmp_path, photo) == expected


@pytest.mark.azure
def test_azures_environment_does_not_reach_the_checkout(tmp_path: Path) -> None:
    command = [servers.azure_python(), "-P", "-c", "import shared"]
    done = subprocess.run(command, cwd=tmp_path, env=_environ(), capture_output=True, check=False)
    assert b"No module named 'shared'" in done.stderr


def test_google_serves_the_folder_as_a_read_only_disk_would_hold_it(
    staged: Path, python: Path, tmp_path: Path, photo: bytes, expected: Any
) -> None:
    """A cloud mounts the package read-only: no graph is saved beside the model, and nothing else is missed."""
    if os.geteuid() == 0:
        pytest.skip("NOT RUN: root may write anywhere; run as another user")
    for folder in [staged, *(path for path in staged.rglob("*") if path.is_dir())]:
        folder.chmod(0o555)
    try:
        test_google_serves_the_folder(staged, python, tmp_path, photo, expected)
    finally:
        for folder in [staged, *(path for path in staged.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
