"""Which files of a checkout go into a staged folder, and where they lie there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from model_server.failures import Stopped
from model_server.manifests import problems, weights_for
from shared.backends import EMBEDDED
from shared.build import BUILD
from shared.manifest import MANIFEST, read_bundle

Cloud = Literal["azure", "google", "vertex"]
Files: TypeAlias = dict[str, Path]
"""Sources by their place in the staged folder."""

MODELS = "model_server/models/"
_GUNICORN = "gunicorn.conf.py"
_DOOR_OF: dict[Cloud, set[str]] = {
    "azure": {"function_app.py", "host.json", "local.settings.json.example", ".funcignore"},
    "google": {"main.py", ".gcloudignore"},
}
# Ignore files tell the deploying tools what to leave behind; all else that is hidden stays here.
_HIDDEN = {".funcignore", ".gcloudignore", ".dockerignore"}
_LEFT_OUT = {"__pycache__", "tests", "node_modules", "local.settings.json"}
_ENDINGS_LEFT_OUT = {".pyc", ".part"}


def code_files(root: Path, cloud: Cloud | None) -> Files:
    """The door of `cloud`, or every one, with the code behind it. Vertex AI needs gunicorn alone, Azure never does."""
    shared = files(root / "shared", "shared/")
    shared.pop(f"shared/{BUILD}", None)
    return _door(root, cloud) | shared | ({} if cloud == "azure" else {_GUNICORN: root / _GUNICORN})


def _door(root: Path, cloud: Cloud | None) -> Files:
    if cloud == "vertex":
        return {}
    others = {name for other, names in _DOOR_OF.items() if cloud not in (None, other) for name in names}
    return {name: path for name, path in files(root / "function_app", "").items() if name not in others}


def with_parts(folders: Iterable[Path]) -> list[Path]:
    """The folders of bundles, each followed by those of its parts that are not among them already."""
    found: dict[Path, None] = {}
    for folder in folders:
        found[folder] = None
        if (folder / MANIFEST).is_file():  # what else is wrong with it is told where its files are planned
            found |= dict.fromkeys(part.folder for part in read_bundle(folder).parts.values())
    return list(found)


def bundle_files(folder: Path, backend: str) -> Files:
    """A bundle's files but for the weights that `backend` does not read, which need not be there."""
    for problem in problems(folder, backend=backend):
        raise Stopped(problem)
    model = read_bundle(folder).model
    own, others = weights_for(backend, model)
    if model.networks and not own and backend in EMBEDDED:
        raise Stopped(f"{folder.name}: model.json names no weights for {backend!r}; found those of {sorted(others)}")
    place = f"{MODELS}{folder.name}/"
    left_out = {place + file for file in others}
    return {target: source for target, source in files(folder, place).items() if target not in left_out}


def files(folder: Path, prefix: str) -> Files:
    """Everything in `folder` that is to be taken."""
    if not folder.is_dir():
        raise Stopped(f"{folder}: there is no such folder")
    return {prefix + path.relative_to(folder).as_posix(): path for path in _walk(folder)}


def _walk(folder: Path) -> Iterator[Path]:
    """The files to take. Links are followed: Google's deploying tool drops them, so what they mean is staged."""
    for path in sorted(folder.iterdir()):
        if _is_left_out(path):
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.exists():
            yield path
        else:
            raise Stopped(f"{path} is a link to nothing")


def _is_left_out(path: Path) -> bool:
    hidden = path.name.startswith(".") and path.name not in _HIDDEN
    return hidden or path.name in _LEFT_OUT or path.suffix in _ENDINGS_LEFT_OUT
