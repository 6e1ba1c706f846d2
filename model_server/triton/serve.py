"""`serve`: a Triton on this machine for some bundles, from the wheel or in a container, until it is told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from types import FrameType
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from model_server.failures import Stopped
from model_server.progress import say_on_terminal
from model_server.triton.config import Serving
from model_server.triton.means import Means
from model_server.triton.repository import write_repository
from model_server.triton.wheel import HOST, Ports

_START_S = 600.0  # an image may have to be pulled
_direct = build_opener(ProxyHandler({}))  # a proxy knows nothing of this machine's own ports


def serving(options: argparse.Namespace) -> Serving:
    """What the command line says of how the bundles are served."""
    fields = ("platform", "forward", "device", "instances", "max_batch", "accelerator")
    return Serving(**{name: getattr(options, name) for name in fields})


def serve(bundles: Sequence[Path], serving: Serving, means: Means, ports: Ports) -> int:
    """Starts a model server, says how to reach it, and stays until it ends or this process is told to stop."""
    serving = means.fit(serving)
    _check_free(ports)
    with _signalled() as told_to_stop, TemporaryDirectory(prefix="thinlens-serve-") as scratch:
        repository = Path(scratch) / "models"
        say_on_terminal(write_repository(bundles, repository, serving))
        if told_to_stop():
            return 0
        with means.running(repository, ports) as process:
            url = f"http://{HOST}:{ports.http}"
            if _wait_until_ready(process, f"{url}/v2/health/ready", told_to_stop):
                print(_reached(serving, ports), flush=True)
            while not told_to_stop() and process.poll() is None:
                sleep(0.1)
            if not told_to_stop():
                raise Stopped(f"the model server ended by itself with status {process.returncode}")
    return 0


def _check_free(ports: Ports) -> None:
    """Raises Stopped where something listens there already, which would be taken for the server, and where two of the
    ports are one."""
    with ExitStack() as held:
        for port in (ports.http, ports.grpc, ports.metrics):
            try:
                held.enter_context(socket.create_server((HOST, port)))
            except OSError as error:
                raise Stopped(f"port {port} cannot be listened on: {os.strerror(error.errno or 0)}") from error


def _reached(serving: Serving, ports: Ports) -> str:
    variables = {"BACKEND": "triton", "BACKEND_URL": f"http://{HOST}:{ports.http}"}
    grpc = {"BACKEND": "triton", "BACKEND_PROTOCOL": "grpc", "BACKEND_URL": f"grpc://{HOST}:{ports.grpc}"}
    lines = [("HTTP", variables), ("gRPC", grpc)]
    if serving.forward == "encoded":
        lines.append(("HTTP, pictures as they came", variables | {"FORWARD": "encoded"}))
    shown = [
        f"  {kind}: {' '.join(f'THINLENS_{name}={value}' for name, value in some.items())}" for kind, some in lines
    ]
    return "\n".join(["ready; to use it from a function, set one of", *shown, "Ctrl-C stops it"])


@contextmanager
def _signalled() -> Iterator[Callable[[], bool]]:
    """Says whether SIGINT or SIGTERM has come."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, told_to_stop: Callable[[], bool]) -> bool:
    ends_at = monotonic() + _START_S
    while not told_to_stop() and process.poll() is None:
        if _is_ready(url):
            return True
        if monotonic() > ends_at:
            raise Stopped(f"the model server is not ready after {_START_S:g} s")
        sleep(0.1)
    return False


def _is_ready(url: str) -> bool:
    try:
        with _direct.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except HTTPError as answer:
        answer.close()
        return False
    except OSError:
        return False
