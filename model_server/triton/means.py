"""What starts a Triton on this machine: the wheel that carries it, or a container."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from model_server.failures import Stopped
from model_server.triton.config import Device, Serving
from model_server.triton.wheel import ADVICE, HOST, Ports, TritonWheel, find_wheel, remove_regions

IMAGE = "nvcr.io/nvidia/tritonserver:25.06-py3"
_OWN = (
    "make an image with `docker build -f docker/model-server.Dockerfile --build-arg FORWARD=encoded "
    "-t thinlens-models .` and say --image thinlens-models"
)
_LACKING = {
    "tensorflow": f"{IMAGE} has no TensorFlow backend; the last that has it is 25.02, "
    "--image nvcr.io/nvidia/tritonserver:25.02-py3",
    "python": f"{IMAGE} lacks the packages that a model in Python imports; {_OWN}",
}
_STOP_S = 20.0


class Means(Protocol):
    """What starts a Triton, and stops it once the block ends."""

    def fit(self, serving: Serving) -> Serving:
        """`serving` as this Triton can have it. Raises Stopped where it cannot."""

    def running(self, repository: Path, ports: Ports) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """The server's process, on a repository that lies in a folder of its own."""


class WheelMeans:
    """The server in the wheel, which has the Python backend only."""

    def __init__(self, wheel: TritonWheel) -> None:
        self._wheel = wheel

    def fit(self, serving: Serving) -> Serving:
        if serving.platform not in (None, "python"):
            raise Stopped(f"--platform {serving.platform} needs --with container: the wheel's Triton has python only")
        return replace(serving, platform="python")

    @contextmanager
    def running(self, repository: Path, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
        scratch = repository.parent
        command, environ = self._wheel.command(repository, scratch, ports), self._wheel.environ(os.environ)
        try:
            # Its models' interpreter imports from the folder that it is started in, which must hold nothing of its own.
            process = subprocess.Popen(command, cwd=scratch, env=environ, start_new_session=True)
            with _stopped(process):
                yield process
        finally:
            remove_regions(scratch)


class ContainerMeans:
    """A container of `image`, which has `tritonserver`, and for the Python platform what `shared` imports as well; of
    NVIDIA's own where none is named."""

    def __init__(self, docker: str, image: str | None, device: Device) -> None:
        self._docker = docker
        self._image = image or IMAGE
        self._lacking = {} if image else _LACKING
        self._gpus = ("--gpus", "all") if device == "gpu" else ()

    def fit(self, serving: Serving) -> Serving:
        if serving.forward == "encoded" and self._lacking:
            raise Stopped(f"--forward encoded: {self._lacking['python']}")
        return replace(serving, lacking=self._lacking)

    @contextmanager
    def running(self, repository: Path, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
        repository.parent.chmod(0o755)  # the container's user is another
        name = f"thinlens-{uuid4().hex[:12]}"
        published = ((ports.http, 8000), (ports.grpc, 8001), (ports.metrics, 8002))
        command = [
            *(self._docker, "run", "--rm", "--name", name, "--shm-size", "256m", *self._gpus),
            *(word for outside, inside in published for word in ("--publish", f"{HOST}:{outside}:{inside}")),
            *("--volume", f"{repository}:/models:ro", self._image),
            *("tritonserver", "--model-repository=/models", "--disable-auto-complete-config"),
        ]
        try:
            with _stopped(subprocess.Popen(command, start_new_session=True)) as process:
                yield process
        finally:
            subprocess.run([self._docker, "rm", "--force", name], capture_output=True, check=False)


def means(wanted: str | None, python: Path | None, image: str | None, device: Device) -> Means:
    """The wheel or a container: what is wanted, else what there is. Raises Stopped where there is neither."""
    wheel = find_wheel(python) if wanted != "container" else None
    if wheel is not None:
        return WheelMeans(wheel)
    docker = _docker() if wanted != "wheel" else None
    if docker is not None:
        return ContainerMeans(docker, image, device)
    if wanted == "container":
        raise Stopped("--with container needs docker, with its engine running")
    there = "no Triton of pip" if wanted else "neither a Triton of pip nor docker with its engine running"
    raise Stopped(f"there is {there}; {ADVICE}, and name its interpreter with --python")


def _docker() -> str | None:
    """The command, where an engine answers it."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    return docker if subprocess.run([docker, "version"], capture_output=True, check=False).returncode == 0 else None


@contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Stops the process at the end of the block: as its host would, then by force."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
