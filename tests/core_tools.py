"""The staged folder on the real Functions host: python -m tests.core_tools --func FUNC --backend onnx build/stage

Takes the README's steps in a copy of the folder: the settings from the example, `func start`, a picture. Needs Azure
Functions Core Tools, and the folder's requirements in the environment that it is run in.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from docker.deploy.declared import SERVERS
from docker.deploy.smoke import Smoke
from model_server.failures import Stopped
from tests import servers
from tests.servers import Server

_READY_S = 120.0
_ANSWER_S = 30.0
_NOWHERE = "http://127.0.0.1:9"


def answer(func: str, folder: Path, backend: str) -> None:
    """Starts the host on `folder` and asks it. Raises AssertionError where it does not start, Stopped or OSError where
    it answers wrongly."""
    shutil.copy(folder / "local.settings.json.example", folder / "local.settings.json")
    port = servers.free_port()
    with Server([func, "start", "--port", str(port)], port, _environ(backend), folder) as host:
        try:
            _ask(host.url, backend)
        except (Stopped, OSError) as error:
            raise Stopped(f"{error}\n{host.log}") from error


def _ask(url: str, backend: str) -> None:
    """A picture; where its model would be on a server, which there is none of here, only whether the host serves us."""
    if backend in SERVERS:
        with urlopen(f"{url}/health", timeout=_ANSWER_S) as reply:
            reply.read()
    else:
        Smoke(limit_s=_READY_S).check(url)


def _environ(backend: str) -> dict[str, str]:
    """The host finds Python and its packages by PATH, and runs nothing but what is in the folder."""
    environ = {name: value for name, value in servers.environ({}).items() if name != "PYTHONPATH"}
    url = {"THINLENS_BACKEND_URL": _NOWHERE} if backend in SERVERS else {}
    return (
        environ
        | url
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}",
            "FUNCTIONS_CORE_TOOLS_TELEMETRY_OPTOUT": "1",
            "THINLENS_BACKEND": backend,
        }
    )


def main(arguments: Sequence[str]) -> int:
    """0, or 1 where the host did not answer as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.core_tools", description="Asks the real Functions host.")
    parser.add_argument("--func", default="func", help="Core Tools (%(default)s)")
    parser.add_argument("--backend", default="onnx", help="what runs the model (%(default)s)")
    parser.add_argument("folder", type=Path, help="what `make stage` has laid out")
    options = parser.parse_args(arguments)
    func = shutil.which(options.func)
    if func is None or not (options.folder / "host.json").is_file():
        return _failed(f"{options.func if func is None else options.folder / 'host.json'}: not there")
    with TemporaryDirectory(prefix="core-tools-") as scratch:
        copy = shutil.copytree(options.folder, Path(scratch) / "stage")
        try:
            answer(str(Path(func).absolute()), copy, options.backend)
        except (AssertionError, Stopped) as error:
            return _failed(str(error))
    return 0


def _failed(message: str) -> int:
    sys.stderr.write(f"core_tools: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
