"""A stand-in for TensorFlow Serving. It is NOT the real server.

The real one is `tensorflow_model_server`, a C++ program that TensorFlow publishes as the container image
tensorflow/serving and as a package of its own archive; no Python registry has it. This process speaks its two protocols
in its place: gRPC on the official generated messages and service stubs (tensorflow-serving-api), REST with the routes,
statuses, texts of errors and ways of writing numbers of the real one's sources. What runs is the real SavedModel, by
TensorFlow, from the repository that `python -m model_server tfserving` has written; its models.config is read by the
official message. There is no batching, no version label, no classify and no regress.

    python -m tests.tfserving_server REPOSITORY --http-port 8501 --grpc-port 8500
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.servers import ROOT, Server, environ, free_port

_PYTHON = "TEST_TFSERVING_PYTHON"
_ENVIRONMENT = ROOT / ".venv-tf"
_START_S = 120.0


class TfServing:
    """The stand-in under way, on the same ports however often it is started."""

    def __init__(self, repository: Path) -> None:
        self._http, self._grpc = free_port(), free_port()
        self.http_url = f"http://127.0.0.1:{self._http}"
        self.grpc_url = f"grpc://127.0.0.1:{self._grpc}"
        ports = ["--http-port", str(self._http), "--grpc-port", str(self._grpc)]
        self._command = [server_python(), "-m", "tests.tfserving_server", str(repository.absolute()), *ports]
        self._server: Server | None = None
        self.start()

    @property
    def pids(self) -> list[int]:
        """The process, and what it started; none once it has ended."""
        return self._server.pids if self._server else []

    def start(self) -> None:
        """Starts it and waits until it answers."""
        settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        self._server = Server(self._command, self._http, environ(settings), ROOT)
        ends_at = monotonic() + _START_S
        while not _answers(self.http_url):
            if self._server.wait(0) is not None or monotonic() > ends_at:
                log = self._server.log
                self.stop()
                raise AssertionError(f"the stand-in for TensorFlow Serving did not start:\n{log}")
            sleep(0.05)

    def pause(self) -> None:
        """Freezes it: the kernel takes what is sent, nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._server is not None:
            self.resume()
            self._server.stop()
            self._server = None

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def tfserving(repository: Path) -> Iterator[TfServing]:
    """The stand-in on a repository of `python -m model_server tfserving`, until the block ends."""
    server = TfServing(repository)
    try:
        yield server
    finally:
        server.stop()


def server_python() -> str:
    """The interpreter that has TensorFlow and the official messages; skips the test where there is none."""
    if _PYTHON in os.environ:
        return os.environ[_PYTHON]
    if find_spec("tensorflow_serving"):
        return sys.executable
    python = _ENVIRONMENT / "bin" / "python"
    if not python.exists():
        pytest.skip(f"NOT RUN: {python} is missing; run `make test-servers`, or name an interpreter in {_PYTHON}")
    return str(python)


def main(arguments: Sequence[str]) -> None:
    """Serves until it is told to end."""
    from tests.tfserving_standin import rest, rpc
    from tests.tfserving_standin.models import Models

    parser = argparse.ArgumentParser(prog="python -m tests.tfserving_server", description="Stands in for TF Serving.")
    parser.add_argument("repository", type=Path, metavar="REPOSITORY")
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    options = parser.parse_args(arguments)
    models = Models(options.repository)
    server = rpc.start(models, options.grpc_port)
    try:
        rest.serve(models, options.http_port)
    finally:
        server.stop(None)


def _answers(url: str) -> bool:
    try:
        urlopen(url, timeout=5).close()
    except HTTPError as answer:  # a route that there is not: it serves
        answer.close()
        return True
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
