"""How an image of the matrix is built: one `docker build` each, its arguments taken from where they are true."""

from __future__ import annotations

import ast
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from docker.matrix.engine import ROOT, Engine, asked
from docker.matrix.variants import Variant

PREFIX = "thinlens"
BUNDLES = "coco-ssd-mobilenet-v2"
DOCKERFILE = "docker/function.Dockerfile"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_BASES = ("PYTHON_IMAGE", "AZURE_IMAGE")
_BUILD_S = 3600.0
_CONNECT_S = 5.0


def build(engine: Engine, variant: Variant, prefix: str, progress: str) -> str:
    """Builds `variant` and gives its tag. Raises Stopped."""
    tag = variant.tag(prefix)
    words = ["build", f"--progress={progress}", "--file", DOCKERFILE, "--tag", tag]
    engine.shown(*words, *options(variant), ".", limit_s=_BUILD_S)
    return tag


def options(variant: Variant) -> list[str]:
    """What `docker build` is told of `variant`, the commit and this machine."""
    arguments = {**variant.build_arguments, **_origin(), **_given(), "BUNDLES": asked("BUNDLES", BUNDLES)}
    contexts = []
    if variant.runtime == "torchscript":
        index, wheels = _torch_source()
        arguments["TORCH_INDEX"] = index
        contexts = ["--build-context", f"wheels={wheels}"] if wheels else []
    return [*(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")), *contexts]


def _origin() -> dict[str, str]:
    return {"GIT_SHA": _git_sha(), "VERSION": version()}


def _git_sha() -> str:
    """The commit; empty where there is no git to tell."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], check=False, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def version() -> str:
    """`__version__` of shared, read without importing it."""
    for node in ast.parse((ROOT / "shared" / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise AssertionError("shared/__init__.py names no __version__")


def _given() -> dict[str, str]:
    """Base images that the environment names in place of the official ones."""
    return {name: value for name in _BASES if (value := asked(name))}


def _torch_source() -> tuple[str, Path | None]:
    """PyTorch's index, or where it cannot be reached a folder of pip's configuration that holds a wheel of torch."""
    if index := asked("TORCH_INDEX"):
        return index, None
    wheels = None if _reachable(TORCH_INDEX) else _own_wheels()
    return ("", wheels) if wheels else (TORCH_INDEX, None)


def _reachable(url: str) -> bool:
    try:
        socket.create_connection((urlsplit(url).hostname or "", 443), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def _own_wheels() -> Path | None:
    folders = (Path(word) for word in _find_links())
    return next((folder for folder in folders if folder.is_dir() and any(folder.glob("torch-*.whl"))), None)


def _find_links() -> Sequence[str]:
    words = ["python3", "-m", "pip", "config", "get", "global.find-links"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    named = [*asked("PIP_FIND_LINKS").split(), *done.stdout.split()]
    return [word.removeprefix("file://") for word in named]
