"""`make parity` and `make compare`: the model servers are started, the command is run with every backend, they stop.

python -m tests.parity [options of the command]
python -m tests.parity --compare FOLDER [options of the command]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from shared.settings import Settings
from tests.servers import ROOT
from tests.servers_up import servers

BUNDLE = "coco-ssd-mobilenet-v2"
PYTHONS = {"torchscript": ROOT / ".venv-torch", "tensorflow": ROOT / ".venv-tf"}
NOTE = "tfserving: a stand-in in Python, not the real server"
EMBEDDED = ("onnx", "torchscript", "tensorflow")


def interpreter(backend: str) -> Path:
    """The one that has the framework of `backend`: what TEST_TORCHSCRIPT_PYTHON or TEST_TENSORFLOW_PYTHON names, else
    that of the environment which make has built."""
    named = os.environ.get(f"TEST_{backend.upper()}_PYTHON")
    return Path(named) if named else PYTHONS[backend] / "bin" / "python"


def main(given: list[str]) -> int:
    compared = given[:1] == ["--compare"]
    command, given = (["compare", "--into", given[1]], given[2:]) if compared else (["parity"], given)
    folder = Path(Settings.load().models) / BUNDLE
    with servers([folder]) as running:
        asked = [sys.executable, "-m", "model_server", *command, str(folder)]
        asked += ["--backends", ",".join([*EMBEDDED, *running.urls])]  # by name: one that cannot be run is a failure
        asked += [word for name, url in running.urls.items() for word in (f"--{name}", url)]
        asked += [f"--python={name}={interpreter(name)}" for name in PYTHONS]
        if compared:
            asked += [f"--server-pid={name}={pid}" for name, pid in running.server_pids.items()]
            asked += [f"--note={NOTE}"]
        return subprocess.run([*asked, *given], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
