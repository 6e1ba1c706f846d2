"""The released package runs as Azure runs it: from a disk that cannot be written to, with its own packages alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import pytest
import requests

from shared import __version__
from tests import servers
from tests.servers import Server

pytestmark = pytest.mark.azure
_JPEG = {"Content-Type": "image/jpeg"}
_TIMEOUT_S = 30
_BUILD_S = 600
_WORKERS = "3.13"
_OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
_DRIVER = servers.ROOT / "tests" / "azure_app.py"
_WORKER_PACKAGES = servers.ROOT / "tests" / "azure-requirements.txt"
_ALONE = """
import runpy, sys
driver, app, site = sys.argv[1:]
sys.path[:0] = [app, site]
sys.argv = [driver, app + "/function_app.py"]
runpy.run_path(driver, run_name="__main__")
"""
_SEALED = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


class App(NamedTuple):
    """An unpacked package, and what to put before a command so that it may only read it."""

    folder: Path
    prefix: list[str]

    @property
    def site(self) -> Path:
        return self.folder / ".python_packages" / "lib" / "site-packages"


def _release(root: Path, *words: str) -> str:
    command = [sys.executable, "-m", "docker.release", *words]
    done = subprocess.run(
        command, cwd=root, env=_environ(), capture_output=True, text=True, timeout=_BUILD_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _environ() -> dict[str, str]:
    return {name: value for name, value in servers.environ({}).items() if name != "PYTHONPATH"}


def _app(tmp_path_factory: pytest.TempPathFactory, python: str, variant: str = "azure-onnx") -> App:
    """The package for `python`, made anew and unpacked."""
    dist = tmp_path_factory.mktemp("dist")
    _release(servers.ROOT, "zip", "--variant", variant, "--python", python, "--dist", str(dist))
    folder = tmp_path_factory.mktemp("wwwroot")
    ZipFile(dist / f"thinlens-{__version__}-{variant}-py{python.replace('.', '')}.zip").extractall(folder)
    return App(folder, _read_only(folder))


def _read_only(folder: Path) -> list[str]:
    """Makes the folder as one that is mounted from a package; root, who may write anywhere, has to mount it so."""
    if os.geteuid() != 0:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        return []
    prefix = ["unshare", "--mount", "sh", "-c", _SEALED, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("NOT RUN: root may write anywhere, and may not mount here; run as another user")
    return prefix


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> App:
    """For the Python of Azure's newer worker."""
    return _app(tmp_path_factory, _WORKERS)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> App:
    """For the Python that runs the tests."""
    return _app(tmp_path_factory, _OWN)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with Azure's worker and nothing else, as it is before an app is there."""
    env = tmp_path_factory.mktemp("worker")
    base = subprocess.run(
        [servers.azure_python(), "-c", "import sys; print(sys._base_executable)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    subprocess.run([base, "-m", "venv", str(env)], check=True, timeout=_BUILD_S)
    python = env / "bin" / "python"
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(_WORKER_PACKAGES)]
    subprocess.run([str(python), *words], check=True, timeout=_BUILD_S)
    return python


@pytest.fixture(scope="module")
def expected(live_server: str, photo: bytes) -> Any:
    """The predictions that the checkout gives."""
    return requests.post(f"{live_server}/predict", data=photo, headers=_JPEG, timeout=_TIMEOUT_S).json()["predictions"]


def test_the_package_is_a_function_app_with_its_packages_and_what_they_are_under(own: App) -> None:
    files = {"host.json", "function_app.py", "shared/__init__.py", "LICENSE", "NOTICE", "THIRD_PARTY.md"}
    assert [name for name in files if not (own.folder / name).is_file()] == []
    assert "| numpy |" in (own.folder / "THIRD_PARTY.md").read_text()
    assert not (own.folder / "main.py").exists()


def test_the_list_names_the_libraries_inside_pillow_and_not_the_one_that_is_taken_out(own: App) -> None:
    listed = (own.folder / "THIRD_PARTY.md").read_text()
    names = ("libjpeg / libjpeg-turbo", "libtiff", "libwebp", "libpng", "libavif")
    assert [name for name in names if f"| {name}, in pillow |" not in listed] == ["libavif"]
    assert list(own.site.glob("pillow.libs/libavif*")) == []


def test_the_package_holds_byte_code_since_none_can_be_written_later(own: App) -> None:
    sources = list(own.folder.rglob("*.py"))
    compiled = {
        path.parent.parent / f"{path.name.rsplit('.', 2)[0]}.py" for path in own.folder.rglob("__pycache__/*.pyc")
    }
    assert [path for path in sources if path not in compiled] == []


def test_nothing_can_write_to_the_package(own: App) -> None:
    done = subprocess.run([*own.prefix, "touch", str(own.folder / "x")], capture_output=True, check=False)
    assert done.returncode != 0


def test_the_workers_environment_holds_nothing_of_ours(worker: Path, tmp_path: Path) -> None:
    for name in ("shared", "numpy", "onnxruntime"):
        done = subprocess.run(
            [str(worker), "-P", "-c", f"import {name}"], cwd=tmp_path, env=_environ(), capture_output=True, check=False
        )
        assert f"No module named '{name}'".encode() in done.stderr


def test_azures_worker_answers_from_the_package(
    newer: App, worker: Path, tmp_path: Path, photo: bytes, expected: Any
) -> None:
    port = servers.free_port()
    # As the start of Azure's worker sets it (worker.py in Azure/azure-functions-python-worker).
    environ = _environ() | {"PYTHONPATH": str(newer.site)}
    command = [*newer.prefix, str(worker), "-P", str(servers.AZURE_HOST), str(newer.folder), "--port", str(port)]
    with Server(command, port, environ, tmp_path) as server:
        reply = requests.post(f"{server.url}/predict", data=photo, headers=_JPEG, timeout=_TIMEOUT_S)
    assert reply.json()["predictions"] == expected


def _answered(app: App, photo: bytes, cwd: Path, **settings: str) -> Any:
    """What the app object answers on this Python, which finds its standard library and the package."""
    request = {"method": "POST", "url": "https://x.net/predict", "headers": _JPEG, "body": b64encode(photo).decode()}
    done = subprocess.run(
        [*app.prefix, sys.executable, "-I", "-S", "-c", _ALONE, str(_DRIVER), str(app.folder), str(app.site)],
        input=json.dumps([request]),
        cwd=cwd,
        env=_environ() | settings,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (reply,) = json.loads(done.stdout)["replies"]
    return json.loads(b64decode(reply["body"]))


def test_the_app_answers_from_the_package_without_another_package(
    own: App, tmp_path: Path, photo: bytes, expected: Any
) -> None:
    assert _answered(own, photo, tmp_path)["predictions"] == expected


@pytest.mark.parametrize("forward", ["tensor", "encoded"])
def test_an_app_without_a_model_server_has_every_package_to_say_so(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, photo: bytes, forward: str
) -> None:
    app = _app(tmp_path_factory, _OWN, "azure-external" + ("-encoded" if forward == "encoded" else ""))
    nobody = f"http://127.0.0.1:{servers.free_port()}"
    settings = {"THINLENS_BACKEND": "triton", "THINLENS_BACKEND_URL": nobody, "THINLENS_FORWARD": forward}
    assert _answered(app, photo, tmp_path, **settings)["error"]["code"] == "server_unreachable"


def test_two_runs_make_the_same_package_byte_for_byte(tmp_path: Path) -> None:
    for run in ("a", "b"):
        _release(servers.ROOT, "zip", "--variant", "azure-external-encoded", "--dist", str(tmp_path / run))
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / run).iterdir()} for run in ("a", "b"))
    assert len(first) == 3
    assert [name for name in first if first[name] != second[name]] == []


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """These sources, committed and tagged as a release of their own."""
    folder = tmp_path_factory.mktemp("tagged")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=servers.ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (servers.ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(servers.ROOT / name, folder / name)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    for words in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--quiet", "-m", "All"],
        ["tag", f"v{__version__}"],
    ):
        subprocess.run([*git, *words], cwd=folder, check=True, capture_output=True)
    return folder


def test_a_tagged_commit_is_released_whole(tagged: Path) -> None:
    told = _release(tagged, "all", "--variant", "azure-external-encoded", "--variant", "google-onnx", "--python", _OWN)
    azure = f"thinlens-{__version__}-azure-external-encoded-py{_OWN.replace('.', '')}"
    google = f"thinlens-{__version__}-google-onnx.zip"
    files = {f"{azure}.zip", f"{azure}.cdx.json", f"{azure}.licences.md", google, "RELEASE.md", "SHA256SUMS"}
    assert {path.name for path in (tagged / "dist").iterdir()} == files
    assert [name for name in files if name not in told] == []
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tagged / "dist", check=True)


def test_changed_sources_are_not_released(tagged: Path) -> None:
    (tagged / "NOTICE").write_text("changed")
    command = [sys.executable, "-m", "docker.release", "all"]
    done = subprocess.run(command, cwd=tagged, env=_environ(), capture_output=True, text=True, check=False)
    assert (done.returncode, "not as committed" in done.stderr) == (1, True)
