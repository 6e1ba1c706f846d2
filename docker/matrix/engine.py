"""The container engine: the private one of docker/engine.sh where it is running, else the one that `docker` reaches."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.matrix.failures import Missing
from model_server.failures import Stopped

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = "thinlens.stand-in"
_SCRIPT = ROOT / "docker" / "engine.sh"
_COMMAND_S = 120.0
_SCRIPT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine, told by `environ`."""

    environ: Mapping[str, str]

    def docker(self, *arguments: str, limit_s: float = _COMMAND_S) -> str:
        """What the command writes. Raises Stopped with its last words where it fails."""
        done = self._run(arguments, subprocess.PIPE, limit_s)
        if done.returncode:
            raise Stopped(f"docker {' '.join(arguments[:2])}: {_last_line(done.stderr) or f'status {done.returncode}'}")
        return done.stdout.strip()

    def shown(self, *arguments: str, limit_s: float) -> None:
        """Runs the command, with what it says for everyone to see. Raises Stopped where it fails."""
        done = self._run(arguments, None, limit_s)
        if done.returncode:
            raise Stopped(f"docker {arguments[0]} failed with status {done.returncode}")

    def logs(self, container: str) -> str:
        """The last lines that a container has written, to either of its streams."""
        done = self._run(["logs", "--tail", "5", container], subprocess.PIPE, _COMMAND_S)
        return f"{done.stdout}{done.stderr}".strip()

    def inspected(self, image: str) -> dict[str, Any]:
        """What the engine knows of `image`. Raises Missing where it is not there."""
        done = self._run(["image", "inspect", image], subprocess.PIPE, _COMMAND_S)
        if done.returncode:
            raise Missing(f"there is no image {image}: {_last_line(done.stderr)}")
        found: dict[str, Any] = json.loads(done.stdout)[0]
        return found

    def has(self, image: str) -> bool:
        try:
            self.inspected(image)
        except Missing:
            return False
        return True

    def _run(self, arguments: Sequence[str], output: int | None, limit_s: float) -> subprocess.CompletedProcess[str]:
        words = ["docker", *arguments]
        try:
            return subprocess.run(
                words, check=False, cwd=ROOT, env=self.environ, stdout=output, stderr=output, text=True, timeout=limit_s
            )
        except FileNotFoundError as error:
            raise Stopped("there is no docker here; docker/engine.sh start brings one") from error
        except subprocess.TimeoutExpired as error:
            raise Stopped(f"docker {arguments[0]} took longer than {limit_s:g} s") from error


def engine() -> Engine:
    """The engine that docker/engine.sh points at. Raises Stopped where none answers."""
    words = ["bash", "-c", f'eval "$("{_SCRIPT}" env)"; env -0']
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=_COMMAND_S)
    if done.returncode:
        raise Stopped(f"docker/engine.sh env: {_last_line(done.stderr)}")
    found = Engine(dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line))
    found.docker("version")
    return found


def engine_script(command: str) -> None:
    """Runs docker/engine.sh COMMAND. Raises Stopped."""
    done = subprocess.run([str(_SCRIPT), command], check=False, capture_output=True, text=True, timeout=_SCRIPT_S)
    if done.returncode:
        raise Stopped(f"docker/engine.sh {command}: {_last_line(done.stderr)}")


def stand_in(inspected: Mapping[str, Any]) -> str | None:
    """What the base of an image only stands in for, or None where it is what it is called."""
    return (inspected["Config"].get("Labels") or {}).get(STAND_IN)


def asked(name: str, otherwise: str = "") -> str:
    """A setting of the build from the environment."""
    return os.environ.get(name) or otherwise


def _last_line(text: str | None) -> str:
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""
