"""Real servers, each a process of its own on a free loopback port, stopped by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "function_app"
BIN = Path(sys.executable).parent
AZURE_HOST = ROOT / "tests" / "azure_host.py"
_AZURE_PYTHON = "TEST_AZURE_PYTHON"
_NONE: Mapping[str, str] = {}
_START_S = 60.0
_STOP_S = 40.0
# What could change a server from outside: a test gives its own.
_FOREIGN_PREFIXES = ("THINLENS_", "AIP_", "GUNICORN_", "FUNCTION_", "PYTHON", "K_")
_FOREIGN = frozenset(
    ("PORT", "BIND", "WORKERS", "THREADS", "XDG_RUNTIME_DIR", "CLOUD_RUN_TIMEOUT_SECONDS", "LOG_EXECUTION_ID")
)


class Server:
    """A server under way. Leaving its `with` block stops it and everything that it started."""

    def __init__(self, command: Sequence[str], port: int, environ: dict[str, str], cwd: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._home = tempfile.TemporaryDirectory(prefix="thinlens-server-")
        self._log = Path(self._home.name) / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=cwd, env=environ | {"HOME": self._home.name}, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def pids(self) -> list[int]:
        """The process and those that it started."""
        return _family(self._process.pid)

    @property
    def resident_bytes(self) -> int:
        """Memory that the process and those that it started hold."""
        return sum(_resident_bytes(pid) for pid in self.pids)

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def terminate(self) -> None:
        """Sends SIGTERM, as every cloud does, and does not wait."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status, or None where it has not ended in that time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        pids = self.pids
        if self._process.poll() is None:
            self.terminate()
        if self.wait(_STOP_S) is None:
            for pid in pids:
                _kill(pid)
            self._process.wait()
        self._home.cleanup()

    def __enter__(self) -> Self:
        try:
            wait_until_answering(f"{self.url}/health", alive=lambda: self._process.poll() is None)
            return self
        except AssertionError as error:
            log = self.log
            self.stop()
            raise AssertionError(f"{error}:\n{log}") from None
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def container(settings: Mapping[str, str] = _NONE) -> Server:
    """gunicorn on the WSGI application, as the container image runs it."""
    port = free_port()
    command = [str(BIN / "gunicorn"), "--bind", f"127.0.0.1:{port}", "shared.web:application"]
    return Server(command, port, environ(settings), ROOT)


def google(settings: Mapping[str, str] = _NONE) -> Server:
    """functions-framework on the Google door; the port comes by PORT, as Cloud Run gives it."""
    port = free_port()
    command = [
        str(BIN / "functions-framework"),
        "--source",
        str(APP / "main.py"),
        "--target",
        "predict",
        "--host",
        "127.0.0.1",
    ]
    return Server(command, port, environ(settings) | {"PORT": str(port)}, ROOT)


def azure(settings: Mapping[str, str] = _NONE, options: Sequence[str] = ()) -> Server:
    """Microsoft's Python worker on the Azure door, behind our small host."""
    port = free_port()
    # -P: the host's own folder does not come on sys.path.
    command = [azure_python(), "-P", str(AZURE_HOST), str(APP), "--port", str(port), *options]
    return Server(command, port, environ(settings), ROOT)


DOORS: dict[str, Callable[..., Server]] = {"container": container, "google": google, "azure": azure}
EVERY_DOOR = pytest.mark.parametrize(
    "door", [name if name != "azure" else pytest.param(name, marks=pytest.mark.azure) for name in DOORS]
)


def azure_python() -> str:
    """The interpreter that has Azure's worker; skips the test where there is none."""
    named = os.environ.get(_AZURE_PYTHON)
    python = Path(named) if named else ROOT / ".venv-azure" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"NOT RUN: {python} is missing. Azure's worker needs Python 3.13; run `make test-azure`")
    return str(python)


def environ(settings: Mapping[str, str]) -> dict[str, str]:
    """This environment without what could change a server, and with `settings`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _FOREIGN and not name.startswith(_FOREIGN_PREFIXES)
    }
    # The editable install of a developer's environment, in short.
    return kept | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **settings}


def wait_until_answering(url: str, limit_s: float = _START_S, alive: Callable[[], bool] = lambda: True) -> None:
    """Returns once `url` answers, whatever it says. Fails where that takes longer, or once `alive` says no."""
    ends_at = monotonic() + limit_s
    while not _answers(url):
        assert alive(), "the server ended before it answered"
        assert monotonic() < ends_at, f"nothing answers at {url} after {limit_s:g} s"
        sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except HTTPError as answer:
        answer.close()
        return True
    except OSError:
        return False


def _family(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [pid, *(member for child in text.split() for member in _family(int(child)))]


def _resident_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
