"""Backends side by side: each in a process of its own, under the interpreter that has its framework."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import msgspec

from model_server.comparison.answering import (
    Failed,
    Measure,
    Measured,
    NotRun,
    Open,
    Opened,
    Predict,
    Predicted,
    Reply,
    Request,
)
from model_server.comparison.weighing import Weigh, Weighed
from shared import backends
from shared.host import LIBRARY_VARIABLES
from shared.manifest import Bundle

_ROOT = Path(__file__).resolve().parent.parent.parent
EMBEDDED: Mapping[str, dict[str, str]] = {name: {"backend": name} for name in backends.EMBEDDED}
"""The backends that run in the process, with their settings."""

EXTERNAL: Mapping[str, dict[str, str]] = {
    "triton-http": {"backend": "triton", "backend_protocol": "http"},
    "triton-grpc": {"backend": "triton", "backend_protocol": "grpc"},
    "triton-encoded": {"backend": "triton", "backend_protocol": "http", "forward": "encoded"},
    "tfserving-http": {"backend": "tfserving", "backend_protocol": "http"},
    "tfserving-grpc": {"backend": "tfserving", "backend_protocol": "grpc"},
}
"""The backends that ask a model server, which needs a URL beside these settings."""

NAMES = (*EMBEDDED, *EXTERNAL)


class Where(msgspec.Struct, frozen=True):
    """What a backend needs here: interpreters by backend, and model servers' URLs by backend."""

    pythons: Mapping[str, str] = {}
    urls: Mapping[str, str] = {}


def unavailable(name: str, bundle: Bundle, where: Where) -> str | None:
    """Why the backend `name` cannot be tried for `bundle`; None where it can."""
    if name in EXTERNAL:
        return None if name in where.urls else f"no model server: give --{name}"
    without = [network for network in bundle.network_names if name not in bundle.network(network).artifacts]
    return f"the bundle has no artifact for it ({', '.join(without)})" if without else None


def settings(name: str, folder: Path, where: Where, threads: int) -> dict[str, Any]:
    """The fields of shared.settings.Settings for the bundle in `folder` under the backend `name`."""
    url = {"backend_url": where.urls[name]} if name in where.urls else {}
    own = EMBEDDED.get(name) or EXTERNAL[name]
    return {"models": str(folder.resolve()), "threads": threads, "timeout_s": 600.0, **own, **url}


class Arm:
    """One process of .answering. What it cannot do it says; where it dies, its last words are why."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors

    def open(self, settings: dict[str, Any], *, warm_up: bool = True) -> Opened | NotRun | Failed:
        reply = self._ask(Open(settings, warm_up))
        assert isinstance(reply, Opened | NotRun | Failed)
        return reply

    def predict(self, picture: Path, params: dict[str, Any] | None = None) -> Predicted | Failed:
        reply = self._ask(Predict(str(picture), params or {}))
        assert isinstance(reply, Predicted | Failed)
        return reply

    def measure(self) -> Measured | Failed:
        reply = self._ask(Measure())
        assert isinstance(reply, Measured | Failed)
        return reply

    def weigh(self, request: Weigh) -> Weighed | Failed:
        reply = self._ask(request)
        assert isinstance(reply, Weighed | Failed)
        return reply

    def _ask(self, request: Request) -> Reply:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if line:
            reply: Reply = msgspec.json.decode(line, type=Reply)
            return reply
        return Failed(f"its process ended with status {self._process.wait()}: {self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"


@contextmanager
def arm(python: str | None = None) -> Iterator[Arm]:
    """A process of its own, ended with the block. `python` is its interpreter, by default this one's."""
    command = [python or sys.executable, "-m", "model_server.comparison.answering"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("THINLENS_")}
    environ = LIBRARY_VARIABLES | environ
    # The interpreter of another environment has this project as files only.
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), environ.get("PYTHONPATH"))))
    with (
        TemporaryFile() as errors,
        subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            yield Arm(process, errors)
        finally:
            process.kill()
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # of what it had not read when it ended
                process.stdin.close()
