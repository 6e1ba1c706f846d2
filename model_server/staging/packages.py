"""The requirements file of a staged folder: the packages of one backend, in one file."""

from __future__ import annotations

import re
from pathlib import Path

from model_server.failures import Stopped
from shared.backends import EMBEDDED

REQUIREMENTS = "requirements.txt"
_REQUIREMENTS_OF = {"torchscript": "requirements-torch.txt", "tensorflow": "requirements-tf.txt"}
_ADDED = {"litert": EMBEDDED["litert"][1].strip("'")}
_ONNX_RUNTIME = re.compile(r"\s*onnxruntime\b")
_INCLUDED = re.compile(r"\s*(-r|--requirement)[\s=]*(?P<path>\S+)")
_ELSEWHERE = re.compile(r"\s*(-c|--constraint|-e|--editable)\b")


def requirements_of(backend: str, root: Path) -> str:
    """The packages of one backend: ONNX Runtime is only for its own."""
    text = flat_requirements(root / _REQUIREMENTS_OF.get(backend, REQUIREMENTS))
    if backend == "onnx":
        return text
    kept = [line for line in text.splitlines() if not _ONNX_RUNTIME.match(line)]
    return "".join(f"{line}\n" for line in [*kept, *([_ADDED[backend]] if backend in _ADDED else [])])


def flat_requirements(path: Path) -> str:
    """The requirements file with those that it includes written out: one file is all that the clouds read."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := _INCLUDED.match(line):
            lines.append(flat_requirements(path.parent / match["path"]).rstrip("\n"))
        elif _ELSEWHERE.match(line):
            raise Stopped(f"{path}: {line.strip()!r} cannot be staged; expected packages and -r")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
