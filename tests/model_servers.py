"""Real model servers, each a process of its own on free loopback ports, stopped by its process id.

`triton` is NVIDIA's server itself; `kserve` and `mlserver` speak the same Open Inference Protocol and are no Triton.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from model_server.triton.wheel import Ports, TritonWheel, find_wheel, remove_regions
from tests.servers import ROOT, Server, environ

_PYTHONS = {"triton": ".venv-servers", "kserve": ".venv-kserve", "mlserver": ".venv-mlserver", "thin": ".venv-thin"}
_READY = "/v2/health/ready"
_START_S = 90.0
_NONE: Mapping[str, str] = {}
_STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How a model server is started, as often as a test wants it, on the same ports."""

    command: Sequence[str]
    ports: Ports
    environ: Mapping[str, str]
    cwd: Path
    after: Callable[[], None] = lambda: None
    """What is left to do once the process has ended, however it ended."""


class ModelServer:
    """A model server under way."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.http_url = f"http://127.0.0.1:{launch.ports.http}"
        self.grpc_url = f"grpc://127.0.0.1:{launch.ports.grpc}"
        self.metrics_url = f"http://127.0.0.1:{launch.ports.metrics}/metrics"
        self._server: Server | None = None
        self._log = ""
        self.start()

    @property
    def pids(self) -> list[int]:
        """The process and those that it started; none once it has ended."""
        return self._server.pids if self._server else []

    @property
    def resident_bytes(self) -> int:
        return self._server.resident_bytes if self._server else 0

    @property
    def log(self) -> str:
        """What it has written since it was last started."""
        return self._server.log if self._server else self._log

    def start(self, *, wait: bool = True) -> None:
        """Starts it; waits until it says that it is ready, unless told not to."""
        assert self._server is None, "it is under way already"
        ports = self._launch.ports
        self._server = Server(self._launch.command, ports.http, dict(self._launch.environ), self._launch.cwd)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, limit_s: float = _START_S) -> None:
        ends_at = monotonic() + limit_s
        while not _is_ready(self.http_url + _READY):
            assert self._server is not None
            ended = self._server.wait(0) is not None
            if ended or monotonic() > ends_at:
                log = self.log
                self.kill()
                raise AssertionError(f"the model server {'ended' if ended else 'is not ready'}:\n{log}")
            sleep(0.05)

    def pause(self) -> None:
        """Freezes all of it: connections stay open, the kernel takes what is sent, nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends all of it at once, as an out-of-memory killer does."""
        self._signal(signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """Ends it as its own kind of host would, by SIGTERM."""
        self.resume()
        self._reap()

    def restart_on_same_ports(self, *, wait: bool = True) -> None:
        self.stop()
        self.start(wait=wait)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self) -> None:
        if self._server is not None:
            members = {pid: _born(pid) for pid in self.pids}
            self._server.terminate()
            if self._server.wait(_STOP_S) is None:
                self._signal(signal.SIGKILL)
            self._log = self._server.log
            self._server.stop()
            self._server = None
            _see_off(members)
            self._launch.after()


@contextmanager
def triton(
    repository: Path, *, flags: Sequence[str] = (), settings: Mapping[str, str] = _NONE
) -> Iterator[ModelServer]:
    """NVIDIA's Triton on the model repository `repository`, with more command line `flags`."""
    wheel = triton_wheel()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="triton-")))
        ports = free_ports()
        command = wheel.command(repository.absolute(), scratch, ports, flags)
        # Its models' interpreter imports from the folder that it is started in, and would find this project there.
        launch = Launch(command, ports, wheel.environ(environ(settings)), scratch, lambda: remove_regions(scratch))
        yield stack.enter_context(_running(launch))


@contextmanager
def kserve(bundle: Path, *, settings: Mapping[str, str] = _NONE) -> Iterator[ModelServer]:
    """KServe's server on the ONNX networks of `bundle`: HTTP with JSON or binary tensors, and gRPC."""
    with _open_inference("kserve", bundle, settings) as server:
        yield server


@contextmanager
def mlserver(bundle: Path, *, settings: Mapping[str, str] = _NONE) -> Iterator[ModelServer]:
    """Seldon's MLServer on the ONNX networks of `bundle`: HTTP with JSON only, and gRPC."""
    with _open_inference("mlserver", bundle, settings) as server:
        yield server


@contextmanager
def _open_inference(name: str, bundle: Path, settings: Mapping[str, str]) -> Iterator[ModelServer]:
    ports = free_ports()
    numbers = [str(ports.http), str(ports.grpc), str(ports.metrics)]
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as scratch:
        script = ["-m", f"tests.oip.serve_{name}", str(bundle.absolute()), scratch]
        with _running(Launch([server_python(name), *script, *numbers], ports, environ(settings), ROOT)) as server:
            yield server


@contextmanager
def _running(launch: Launch) -> Iterator[ModelServer]:
    server = ModelServer(launch)
    try:
        yield server
    finally:
        server.stop()


def triton_wheel() -> TritonWheel:
    """The wheel with Triton inside; skips the test where there is none."""
    wheel = find_wheel(Path(server_python("triton")))
    assert wheel is not None, "nvidia-pytriton is not installed there"
    return wheel


def server_python(name: str) -> str:
    """The interpreter that has the server `name` installed; skips the test where there is none."""
    variable = f"TEST_{name.upper()}_PYTHON"
    named = os.environ.get(variable)
    python = Path(named) if named else ROOT / _PYTHONS[name] / "bin" / "python"
    if not python.exists():
        pytest.skip(f"NOT RUN: {python} is missing; run `make test-servers`, or name an interpreter in {variable}")
    return str(python)


def free_ports() -> Ports:
    """Three free ports, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        return Ports(*(probe.getsockname()[1] for probe in probes))


def _is_ready(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except HTTPError as answer:
        answer.close()
        return False
    except OSError:
        return False


def _see_off(members: Mapping[int, str]) -> None:
    """Kills what outlives the process that started it, and only that: a process id may be another's by then."""
    for pid, born in members.items():
        ends_at = monotonic() + 2
        while born and _born(pid) == born and monotonic() < ends_at:
            sleep(0.02)
        if born and _born(pid) == born:
            os.kill(pid, signal.SIGKILL)


def _born(pid: int) -> str:
    """When a process was started, as the kernel counts; empty where there is none (or nothing is left of it)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
