"""The container engine that is there, or our own (docker/engine.sh), and containers under way on it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

from docker.matrix import engine as found
from tests.servers import ROOT, wait_until_answering

ENGINE = ROOT / "docker" / "engine.sh"
PYTHON_IMAGE = "python:3.11-slim-bookworm"
AZURE_IMAGE = "mcr.microsoft.com/azure-functions/python:4-python3.11"
TRITON_STAND_IN = "thinlens/triton-stand-in:2.51.0"
_BUILD_S = 1800.0
_COMMAND_S = 120.0
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Image:
    """An image built here: `log` is what BuildKit did, a line each; `stand_in` is what its base only stands in for."""

    tag: str
    log: str
    megabytes: float
    stand_in: str | None
    seconds: float

    @property
    def stages(self) -> frozenset[str]:
        """The stages of the Dockerfile that were built, or taken from the cache."""
        steps = (line.split(" ", 1)[1] for line in self.log.splitlines() if line.startswith("#") and " [" in line)
        return frozenset(step[1:].split(" ", 1)[0] for step in steps if step.startswith("["))


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine, told by `environ`."""

    environ: Mapping[str, str]

    def docker(self, *arguments: str, limit_s: float = _COMMAND_S, more: Mapping[str, str] = _NONE) -> str:
        """What the command writes. Fails with its output where it fails."""
        done = subprocess.run(
            ["docker", *arguments],
            check=False,
            cwd=ROOT,
            env={**self.environ, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit_s,
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout[-4000:]}"
        return done.stdout.strip()

    def build(
        self, dockerfile: str, tag: str, arguments: Mapping[str, str] = _NONE, options: Sequence[str] = ()
    ) -> Image:
        """The image of docker/`dockerfile`, built as the README says."""
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        begin = monotonic()
        path = str(Path("docker") / dockerfile)
        log = self.docker("build", "--progress=plain", "-f", path, "-t", tag, *given, *options, ".", limit_s=_BUILD_S)
        return self.image(tag, log, monotonic() - begin)

    def image(self, tag: str, log: str = "", seconds: float = 0.0) -> Image:
        """An image that is there."""
        inspected = json.loads(self.docker("image", "inspect", tag))[0]
        return Image(tag, log, inspected["Size"] / 1e6, found.stand_in(inspected), seconds)

    def asked(self, image: Image, *command: str) -> str:
        """What `command` writes inside the image."""
        return self.docker("run", "--rm", "--network", "none", image.tag, *command)

    @contextmanager
    def network(self) -> Iterator[str]:
        name = f"thinlens-test-{uuid4().hex[:12]}"
        self.docker("network", "create", name)
        try:
            yield name
        finally:
            self.docker("network", "rm", name)

    @contextmanager
    def running(
        self, image: Image, port: int, environ: Mapping[str, str] = _NONE, options: Sequence[str] = ()
    ) -> Iterator[Container]:
        """A container of `image`, as tightly shut as a careful host runs it, its `port` on a free one of loopback."""
        given = [word for name, value in environ.items() for word in ("--env", f"{name}={value}")]
        shut = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        identity = self.docker("run", "--detach", *shut, "--publish", f"127.0.0.1::{port}", *given, *options, image.tag)
        try:
            yield Container(self, identity, self.docker("port", identity, str(port)).splitlines()[0])
        finally:
            self.docker("rm", "--force", "--volumes", identity)


@dataclass(frozen=True, slots=True)
class Container:
    """A container under way, which answers at `address`."""

    engine: Engine
    identity: str
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.engine.docker("logs", self.identity)

    @property
    def alive(self) -> bool:
        return self._inspected("{{.State.Running}}") == "true"

    @property
    def health(self) -> str:
        """What the image's own HEALTHCHECK has found: starting, healthy or unhealthy."""
        return self._inspected("{{.State.Health.Status}}")

    @property
    def killed_for_memory(self) -> bool:
        """Whether any of its processes was."""
        return self._inspected("{{.State.OOMKilled}}") == "true"

    def wait_until_answering(self, path: str = "/health") -> None:
        try:
            wait_until_answering(self.url + path, alive=lambda: self.alive)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.log[-4000:]}") from None

    def wait_until_healthy(self, limit_s: float = 60.0) -> None:
        ends_at = monotonic() + limit_s
        while (health := self.health) != "healthy":
            assert self.alive, f"the container ended:\n{self.log[-4000:]}"
            assert monotonic() < ends_at, f"{health} after {limit_s:g} s:\n{self.log[-4000:]}"
            sleep(0.2)

    def terminate(self) -> None:
        """Sends SIGTERM, as every cloud does, and does not wait."""
        self.engine.docker("kill", "--signal", "TERM", self.identity)

    def wait(self, limit_s: float) -> int | None:
        """Its exit status, or None where it has not ended in that time."""
        ends_at = monotonic() + limit_s
        while self.alive:
            if monotonic() > ends_at:
                return None
            sleep(0.05)
        return int(self._inspected("{{.State.ExitCode}}"))

    def stop(self, limit_s: int) -> tuple[int, float]:
        """Sends SIGTERM, and SIGKILL after `limit_s`; gives the exit status and the seconds that it took."""
        begin = monotonic()
        self.engine.docker("stop", "--time", str(limit_s), self.identity)
        return int(self._inspected("{{.State.ExitCode}}")), monotonic() - begin

    def _inspected(self, what: str) -> str:
        return self.engine.docker("inspect", "--format", what, self.identity)


@contextmanager
def engine() -> Iterator[Engine]:
    """The engine that is there; else our own, stopped afterwards where it was started for this."""
    was_ours = bool(_script("env"))
    _script("start")
    try:
        _script("base")
        yield Engine(found.engine().environ)
    finally:
        if not was_ours and _script("env"):
            _script("stop")


def build_triton_stand_in() -> None:
    _script("triton")


def build_azure_stand_in() -> None:
    """In our own engine; any other pulls the real image."""
    _script("azure")


def _script(command: str) -> str:
    done = subprocess.run([str(ENGINE), command], check=False, capture_output=True, text=True, timeout=_BUILD_S)
    assert done.returncode == 0, f"engine.sh {command}:\n{done.stderr}"
    return done.stdout
