"""`make docker-run`: docker/run.sh starts the function, replaces what it has started before, and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from tests import containers
from tests.containers import Engine
from tests.servers import ROOT, Server, free_port, wait_until_answering

pytestmark = pytest.mark.images

_RUN = ROOT / "docker" / "run.sh"
_TIMEOUT_S = 60.0
_BUILD_S = 600.0


class Runs:
    """The script under a name of its own, so that it stops no run but those of these tests."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.port = free_port()
        name = f"thinlens-test-run-{uuid4().hex[:12]}"
        self.environ = {**engine.environ, "RUN": name, "IMAGE": f"{name}:image", "PORT": str(self.port)}
        self.label = f"label=thinlens.run={name}"

    @contextmanager
    def running(self, **environ: str) -> Iterator[Server]:
        with Server([str(_RUN)], self.port, {**self.environ, **environ}, ROOT) as server:
            while "is the function" not in server.log:
                assert server.wait(0.1) is None, server.log
            wait_until_answering(f"{server.url}/health", alive=lambda: server.wait(0) is None)
            yield server

    @property
    def containers(self) -> list[str]:
        return self.engine.docker("ps", "--all", "--quiet", "--filter", self.label).split()

    @property
    def image(self) -> str:
        return self.engine.docker("image", "inspect", "--format", "{{.Id}}", self.environ["IMAGE"])

    def close(self) -> None:
        for container in self.containers:
            self.engine.docker("rm", "--force", container)
        self.engine.docker("image", "rm", "--force", self.environ["IMAGE"])


@pytest.fixture(scope="module")
def runs(engine: Engine) -> Iterator[Runs]:
    found = Runs(engine)
    yield found
    found.close()


@pytest.fixture(scope="module")
def foreign(engine: Engine) -> Iterator[tuple[str, str]]:
    """Somebody else's container, and an image of theirs that has no name."""
    container = engine.docker("run", "--detach", containers.PYTHON_IMAGE, "sleep", "600")
    image = engine.docker("commit", container)
    yield container, image
    engine.docker("rm", "--force", container)
    engine.docker("image", "rm", "--force", image)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started may be interrupted, even where these tests run in the background of a shell, which has it
    ignored: a script that begins so cannot catch it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_it_answers_and_ends_with_the_script(runs: Runs, photo: bytes) -> None:
    with runs.running() as server:
        reply = requests.post(f"{server.url}/predict", data=photo, timeout=_TIMEOUT_S)
        os.kill(server.pids[0], signal.SIGINT)
        status = server.wait(_TIMEOUT_S)
    assert (reply.status_code, status, runs.containers) == (200, 0, [])


def test_settings_go_into_the_container(runs: Runs) -> None:
    with runs.running(THINLENS_API_KEYS="a-key") as server:
        assert requests.get(f"{server.url}/models", timeout=_TIMEOUT_S).status_code == 401


def test_a_later_run_takes_the_place_of_an_earlier_one_and_of_its_image(runs: Runs) -> None:
    with runs.running(VERSION="1.0.1") as earlier:
        old_container, old_image = runs.containers, runs.image
        with runs.running(VERSION="1.0.2"):
            assert (earlier.wait(_TIMEOUT_S), old_container != runs.containers) == (0, True)
            with pytest.raises(AssertionError, match="No such image"):
                runs.engine.docker("image", "inspect", old_image)


def test_what_is_somebody_elses_is_left_alone(runs: Runs, foreign: tuple[str, str], engine: Engine) -> None:
    container, image = foreign
    with runs.running():
        running = engine.docker("inspect", "--format", "{{.State.Running}}", container)
        assert (running, engine.docker("image", "inspect", "--format", "{{.Id}}", image)) == ("true", image)


def test_a_port_that_is_taken_is_told_in_a_line(runs: Runs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _ended(runs.environ | {"PORT": str(port)})
    assert done == (1, f"docker-run: port {port} of 127.0.0.1 is taken by something else; name another with PORT\n")


def test_a_machine_without_an_engine_is_told_how_to_get_one(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "DOCKER_HOST": f"unix://{tmp_path}/none", "THINLENS_ENGINE": str(tmp_path)}
    status, said = _ended(environ)
    assert (status, said.count("\n"), "docker/engine.sh start" in said) == (1, 1, True)


def _ended(environ: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run([_RUN], check=False, env=environ, capture_output=True, text=True, timeout=_BUILD_S)
    return done.returncode, done.stderr
