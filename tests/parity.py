"""`make parity` and `make compare`: the model servers are started, the command is run with every backend, they stop.

python -m tests.parity [options of the command]
python -m tests.parity --compare FOLDER [options of the command]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shared.settings import Settings
from tests.servers import ROOT
from tests.servers_up import servers

BUNDLE = "coco-ssd-mobilenet-v2"
PYTHONS = {"torchscript": ROOT / ".venv-torch", "tensorflow": ROOT / ".venv-tf"}
EMBEDDED = ("onnx", "torchscript", "tensorflow")


def main(given: list[str]) -> int:
    command = ["parity"]
    if given[:1] == ["--compare"]:
        command, given = ["compare", "--into", given[1]], given[2:]
    folder = Path(Settings.load().models) / BUNDLE
    with servers([folder]) as urls:
        asked = [sys.executable, "-m", "model_server", *command, str(folder)]
        asked += ["--backends", ",".join([*EMBEDDED, *urls])]  # by name: one that cannot be run is a failure
        asked += [word for name, url in urls.items() for word in (f"--{name}", url)]
        asked += [f"--python={name}={place / 'bin' / 'python'}" for name, place in PYTHONS.items()]
        return subprocess.run([*asked, *given], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
