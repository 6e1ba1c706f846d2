"""Prints which packages of the requirements files an image installs: `requirements.py CLOUD RUNTIME`.

The requirements files are the one source. An image leaves out the doors of the other clouds, and the framework that it
does not run.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_DOORS = {"azure": "azure-functions", "google": "functions-framework", "vertex": "functions-framework"}
_FILES = {
    "onnx": "requirements.txt",
    "torchscript": "requirements-torch.txt",
    "tensorflow": "requirements-tf.txt",
    "external": "requirements.txt",
}
_EMBEDDED_RUNTIME = "onnxruntime"


def chosen(cloud: str, runtime: str, folder: Path) -> list[str]:
    """The requirements of one image, a line each."""
    left_out = set(_DOORS.values()) - {_DOORS[cloud]}
    if runtime != "onnx":
        left_out.add(_EMBEDDED_RUNTIME)
    return [line for line in _lines(folder / _FILES[runtime]) if _name(line) not in left_out]


def _lines(path: Path) -> list[str]:
    """Every requirement in `path` and in the files that it includes."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition(" #")[0].strip()
        if text.startswith("-r "):
            found += _lines(path.parent / text[3:].strip())
        elif text and not text.startswith("#"):
            found.append(text)
    return found


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    cloud, runtime = sys.argv[1:]
    for choice, known in (("CLOUD", cloud in _DOORS), ("RUNTIME", runtime in _FILES)):
        if not known:
            sys.exit(f"{choice}: expected one of {', '.join(_DOORS if choice == 'CLOUD' else _FILES)}")
    sys.stdout.write("".join(f"{line}\n" for line in chosen(cloud, runtime, Path.cwd())))
