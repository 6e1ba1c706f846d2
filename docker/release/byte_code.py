"""Byte code for a package that nobody can write to once it is mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from model_server.failures import Stopped

_ROOT = "/home/site/wwwroot"  # where Azure mounts a function app: what a traceback should name


def interpreter(python: str, others: Sequence[Path]) -> str | None:
    """This Python, one of `others` or the one on PATH, whichever first is of the version `python` (3.11, …)."""
    candidates = [sys.executable, *map(str, others), shutil.which(f"python{python}")]
    return next((each for each in candidates if each and _version(each) == python), None)


def compile_all(folder: Path, compiler: str) -> None:
    """Compiles what is in `folder`, as files that are never compared with the time of their source."""
    words = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", _ROOT]
    # Sets of constants lie in the files in the order of their hashes.
    done = subprocess.run([compiler, *words, str(folder)], env=os.environ | {"PYTHONHASHSEED": "0"}, check=False)
    if done.returncode:
        raise Stopped(f"{compiler} could not compile the packages: status {done.returncode}")


def _version(path: str) -> str:
    words = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError as error:
        raise Stopped(f"{path}: expected a Python: {error.strerror}") from error
