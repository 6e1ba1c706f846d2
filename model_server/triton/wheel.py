"""The Triton server that the nvidia-pytriton wheel carries: no container, no graphics card, its Python backend only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model_server.failures import Stopped

HOST = "127.0.0.1"
ADVICE = "in an environment of its own, pip install nvidia-pytriton 'numpy<2' msgspec pillow onnxruntime"

_ASKED_S = 60.0
_PLACES = """
import json, sys, sysconfig
from importlib.metadata import version
from importlib.util import find_spec
found = find_spec("pytriton")
print(json.dumps({
    "package": found.origin if found else None,
    "libraries": sysconfig.get_config_var("LIBDIR"),
    "version": "%d.%d" % sys.version_info[:2],
    "numpy": version("numpy") if find_spec("numpy") else "",
}))
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the server listens, on this machine only."""

    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True, slots=True)
class TritonWheel:
    """The wheel as one interpreter has it installed: `package` is its folder, `version` the interpreter's."""

    python: Path
    package: Path
    libraries: str
    version: str

    def command(self, repository: Path, scratch: Path, ports: Ports, flags: Sequence[str] = ()) -> list[str]:
        """What starts the server on `repository`. Its Python backend is laid out in `scratch`, which has to live as
        long as the server does."""
        self._lay_out_backend(scratch / "backends" / "python")
        return [
            str(self.package / "tritonserver" / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={scratch / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={region_prefix(scratch)}",
            "--disable-auto-complete-config",
            "--exit-timeout-secs=5",
            "--cuda-memory-pool-byte-size=0:0",
            "--pinned-memory-pool-byte-size=0",
            *(f"--{name}-address={HOST}" for name in ("http", "grpc", "metrics")),
            f"--http-port={ports.http}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-port={ports.metrics}",
            *flags,
        ]

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with what the server needs to find its own libraries. Its models' interpreter takes its packages from
        where the first `python3` in PATH has them."""
        folders = [str(self.package.parent / "nvidia_pytriton.libs"), self.libraries, base.get("LD_LIBRARY_PATH", "")]
        return {
            **base,
            "PATH": os.pathsep.join([str(self.python.parent), base.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join(folder for folder in folders if folder),
        }

    def _lay_out_backend(self, folder: Path) -> None:
        inside = self.package / "tritonserver"
        stub = inside / "python_backend_stubs" / self.version / "triton_python_backend_stub"
        if not stub.is_file():
            known = sorted(path.name for path in (inside / "python_backend_stubs").iterdir())
            raise Stopped(
                f"the nvidia-pytriton wheel has no Python backend for {self.version}, only {', '.join(known)}"
            )
        shutil.copytree(inside / "backends" / "python", folder, dirs_exist_ok=True)
        shutil.copy(stub, folder)


def find_wheel(python: Path | None = None) -> TritonWheel | None:
    """The wheel that the interpreter `python`, or this one, has installed; None where it has none.

    Raises Stopped where it would not work: under numpy 2 its Python backend answers with empty tensors.
    """
    python = python or Path(sys.executable)
    # Of use from whatever folder the server is started in, and not resolved: a link is what makes an environment.
    python = Path(shutil.which(python) or python).absolute()
    places = _places(python)
    if places.package is None:
        return None
    if not places.numpy.startswith("1."):
        raise Stopped(f"the Triton of {python} needs numpy 1 and finds {places.numpy or 'none'}: {ADVICE}")
    return TritonWheel(python, Path(places.package).parent, places.libraries, places.version)


class _Places(msgspec.Struct, frozen=True):
    """What _PLACES prints."""

    package: str | None
    libraries: str
    version: str
    numpy: str


def _places(python: Path) -> _Places:
    try:
        asked = subprocess.run(
            [python, "-c", _PLACES], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_ASKED_S
        )
        return msgspec.json.decode(asked.stdout, type=_Places)
    except (msgspec.DecodeError, subprocess.TimeoutExpired) as error:
        raise Stopped(f"{python} does not answer as a Python interpreter does") from error


def region_prefix(scratch: Path) -> str:
    """How the shared memory regions are named of the server that has its backend in `scratch`."""
    return f"thinlens-{scratch.name}"


def remove_regions(scratch: Path) -> None:
    """Gives back the shared memory that a killed server has left."""
    for region in Path("/dev/shm").glob(f"{region_prefix(scratch)}*"):
        region.unlink(missing_ok=True)
