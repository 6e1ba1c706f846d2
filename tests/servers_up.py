"""`make servers-up` and `make servers-down`: a real Triton, and the stand-in of TensorFlow Serving, on loopback.

    python -m tests.servers_up start --bundle coco-ssd-mobilenet-v2
    python -m tests.servers_up stop

`start` leaves a process of its own behind that holds them, and says where they listen; `stop` ends it by its id.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from types import FrameType

import msgspec
import pytest

from model_server import tfserving
from model_server.failures import Stopped
from model_server.manifests import problems
from model_server.triton import repository
from model_server.triton.config import Serving
from shared.errors import ConfigurationError
from shared.settings import Settings
from tests import model_servers, tfserving_server
from tests.servers import ROOT

PLACE = ROOT / "build" / "servers"
_STATE, _LOG = PLACE / "servers.json", PLACE / "log"
_START_S, _STOP_S = 240.0, 60.0


class Running(msgspec.Struct, frozen=True):
    """Where the servers listen, by their option in `model_server parity`, the process that holds them, and theirs."""

    pid: int
    urls: dict[str, str]
    server_pids: dict[str, int]


@contextmanager
def servers(bundles: Sequence[Path]) -> Iterator[Running]:
    """Both servers with `bundles`, held by this process."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="thinlens-servers-")))
        repository.write_repository(bundles, scratch / "triton", Serving(platform="python", forward="encoded"))
        first = stack.enter_context(model_servers.triton(scratch / "triton"))
        urls = {"triton-http": first.http_url, "triton-grpc": first.grpc_url, "triton-encoded": first.http_url}
        (bundle,) = bundles
        tfserving.write_repository(bundle, scratch / "tfserving", tfserving.Options(str(scratch / "tfserving")))
        second = stack.enter_context(tfserving_server.tfserving(scratch / "tfserving"))
        urls |= {"tfserving-http": second.http_url, "tfserving-grpc": second.grpc_url}
        yield Running(os.getpid(), urls, {"triton": first.pids[0], "tfserving": second.pids[0]})


def _start(bundle: str) -> int:
    if _state() is not None:
        return _failed("they are up already; `make servers-down` stops them\n")
    for problem in problems(_folder(bundle)):
        return _failed(f"{problem}\n")
    PLACE.mkdir(parents=True, exist_ok=True)
    with _LOG.open("wb") as log:
        command = [sys.executable, "-m", "tests.servers_up", "hold", "--bundle", bundle]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        state = _up(process)
    except KeyboardInterrupt:
        _end(process)
        return _failed("stopped\n")
    if state is None:
        _end(process)
        return _failed(_LOG.read_text(encoding="utf-8", errors="replace"))
    for name, url in state.urls.items():
        sys.stdout.write(f"{name}: {url}\n")
    return 0


def _up(process: subprocess.Popen[bytes]) -> Running | None:
    """Where the servers of `process` are, once they are up; None where they will not be."""
    ends_at = monotonic() + _START_S
    while (state := _state()) is None and process.poll() is None and monotonic() < ends_at:
        sleep(0.1)
    return state


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)


def _folder(bundle: str) -> Path:
    return Path(bundle) if Path(bundle).is_dir() else Path(Settings.load().models) / bundle


def _hold(bundle: str) -> int:
    signal.signal(signal.SIGTERM, _leave)
    try:
        with servers([_folder(bundle)]) as running:
            whole = _STATE.with_suffix(".part")
            whole.write_bytes(msgspec.json.encode(running))
            whole.rename(_STATE)
            try:
                while True:
                    sleep(60)
            finally:
                _STATE.unlink()
    except (Stopped, ConfigurationError, pytest.skip.Exception) as error:
        return _failed(f"{error}\n")


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Ends whatever is under way, once: what is being stopped then is to be stopped whole."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _stop() -> int:
    state = _state()
    if state is None:
        sys.stdout.write("they are not up\n")
        return 0
    os.kill(state.pid, signal.SIGTERM)
    ends_at = monotonic() + _STOP_S
    while Path(f"/proc/{state.pid}").exists() and monotonic() < ends_at:
        sleep(0.1)
    return 0


def _failed(why: str) -> int:
    sys.stderr.write(why)
    return 1


def _state() -> Running | None:
    """Where they are; None where nobody holds them."""
    try:
        state = msgspec.json.decode(_STATE.read_bytes(), type=Running)
        command = Path(f"/proc/{state.pid}/cmdline").read_bytes()
    except OSError:
        return None
    return state if b"tests.servers_up" in command else None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["start", "stop", "hold"])
    parser.add_argument(
        "--bundle", default="coco-ssd-mobilenet-v2", help="its folder, or its name in the models folder"
    )
    options = parser.parse_args()
    if options.what == "stop":
        return _stop()
    return _start(options.bundle) if options.what == "start" else _hold(options.bundle)


if __name__ == "__main__":
    sys.exit(main())
