"""`model_server serve`: a real server, started and stopped as a person would."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import IO
from urllib.request import urlopen

import pytest

from model_server.failures import Stopped
from model_server.triton.serve import _check_free
from model_server.triton.wheel import Ports, find_wheel
from tests.model_servers import free_ports, server_python
from tests.servers import ROOT, environ

COCO = "coco-ssd-mobilenet-v2"


@contextmanager
def served(*options: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The command under way, and what it prints."""
    command = [sys.executable, "-m", "model_server", "serve", COCO, *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def wheel_options(ports: Ports) -> list[str]:
    numbers = (("http", ports.http), ("grpc", ports.grpc), ("metrics", ports.metrics))
    given = [word for name, number in numbers for word in (f"--{name}-port", str(number))]
    return ["--with", "wheel", "--python", server_python("triton"), *given]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def fails(*options: str, **settings: str) -> str:
    command = [sys.executable, "-m", "model_server", "serve", COCO, *options]
    ended = subprocess.run(command, cwd=ROOT, env=environ(settings), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    return ended.stderr


@pytest.mark.servers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_how_to_reach_the_server_and_stops_it_when_told(number: signal.Signals) -> None:
    ports = free_ports()
    with served(*wheel_options(ports), "--forward", "encoded") as (process, said):
        lines = [said.readline().strip() for _ in range(5)]
        url = f"http://127.0.0.1:{ports.http}"
        assert lines == [
            "ready; to use it from a function, set one of",
            f"HTTP: THINLENS_BACKEND=triton THINLENS_BACKEND_URL={url}",
            f"gRPC: THINLENS_BACKEND=triton THINLENS_BACKEND_PROTOCOL=grpc "
            f"THINLENS_BACKEND_URL=grpc://127.0.0.1:{ports.grpc}",
            f"HTTP, pictures as they came: THINLENS_BACKEND=triton THINLENS_BACKEND_URL={url} THINLENS_FORWARD=encoded",
            "Ctrl-C stops it",
        ]
        for model in (COCO, f"{COCO}.detector"):
            with urlopen(f"{url}/v2/models/{model}/ready", timeout=10) as answer:
                assert answer.status == 200
        (server,) = children(process.pid)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert not Path(f"/proc/{server}").exists()


@pytest.mark.servers
def test_a_server_that_ends_by_itself_ends_the_command() -> None:
    with served(*wheel_options(free_ports())) as (process, said):
        assert said.readline().startswith("ready")
        (server,) = children(process.pid)
        subprocess.run(["kill", "-KILL", str(server)], check=True)
        ends_at = monotonic() + 30
        while process.poll() is None and monotonic() < ends_at:
            sleep(0.05)
        assert process.returncode == 1


@pytest.mark.servers
def test_told_to_stop_before_it_is_ready_it_leaves_nothing(tmp_path: Path) -> None:
    with served(*wheel_options(free_ports()), TMPDIR=str(tmp_path)) as (process, _):
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            sleep(0.01)
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.servers
def test_a_platform_that_the_wheel_has_not_is_refused() -> None:
    said = fails(*wheel_options(free_ports()), "--platform", "onnx")
    assert said == "model_server: --platform onnx needs --with container: the wheel's Triton has python only\n"


@pytest.mark.servers
def test_a_port_that_is_taken_is_named() -> None:

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = fails(*wheel_options(Ports(port, *([free_ports().grpc] * 2))))
    assert said == f"model_server: port {port} cannot be listened on: Address already in use\n"


@pytest.mark.parametrize("program", ["true", "false", "cat"])
def test_what_is_no_python_is_named(program: str) -> None:
    said = fails("--python", f"/bin/{program}")
    assert said == f"model_server: /bin/{program} does not answer as a Python interpreter does\n"


def test_an_interpreter_is_found_from_wherever_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = tmp_path / "bin" / "python"
    places.parent.mkdir()
    told = json.dumps({"package": "/wheel/pytriton/__init__.py", "libraries": "", "version": "3.11", "numpy": "1.26"})
    places.write_text(f"#!/bin/sh\necho '{told}'\n")
    places.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    wheel = find_wheel(Path("bin/python"))
    assert wheel is not None
    assert wheel.environ({})["PATH"].startswith(f"{places.parent}:")


def test_one_port_for_two_protocols_is_refused() -> None:
    port = free_ports().http
    with pytest.raises(Stopped, match=f"port {port} cannot be listened on"):
        _check_free(Ports(port, port, free_ports().metrics))


def test_without_a_wheel_and_without_docker_it_says_what_helps(tmp_path: Path) -> None:
    bare = Path(sys.base_prefix) / "bin" / "python3"  # the interpreter that this environment was made from
    said = fails("--python", str(bare), PATH=str(tmp_path))
    assert said.startswith("model_server: there is neither a Triton of pip nor docker")
    assert "pip install nvidia-pytriton" in said


def test_a_container_is_not_begun_without_its_engine(tmp_path: Path) -> None:
    said = fails("--with", "container", PATH=str(tmp_path))
    assert said == "model_server: --with container needs docker, with its engine running\n"


def test_servers_up_names_a_bundle_that_is_not_there_in_one_line() -> None:
    command = [sys.executable, "-m", "tests.servers_up", "start", "--bundle", "nix"]
    ended = subprocess.run(command, cwd=ROOT, env=environ({}), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.endswith("nix holds no model.json\n")
    assert ended.stderr.count("\n") == 1
