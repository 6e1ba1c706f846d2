"""The staged folder, or the zip file of it, that is deployed."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection
from pathlib import Path

from docker.deploy.declared import SERVERS
from docker.release.archive import EARLIEST, write_zip
from model_server.failures import Stopped

_PACKAGES = ".python_packages/"
_COMPILED = re.compile(r"\.cpython-(\d)(\d+)[.-]")
_BUNDLE = re.compile(r"model_server/models/[^/]+/model\.json")


def check_staged(path: Path, needed: Collection[str], bundle: str | None, backend: str | None) -> None:
    """Raises Stopped unless the folder or zip file `path` has these files, and the bundle, or any, with weights that
    `backend` reads."""
    names = _names(path)
    own = [f"model_server/models/{bundle}/model.json"] if bundle else []
    missing = [name for name in (*needed, *own) if name not in names]
    if missing:
        raise Stopped(f"{path}: there is no {missing[0]} in it; expected what `make stage` lays out")
    bundles = own or sorted(name for name in names if _BUNDLE.fullmatch(name))
    if backend and backend not in SERVERS and bundles and not any(_fits(path, one, backend, names) for one in bundles):
        raise Stopped(f"{path}: there are no weights for --backend {backend} in it; found {', '.join(bundles)}")


def is_complete(path: Path) -> bool:
    """Whether the Python packages are inside, so that nothing is left to build."""
    return any(name.startswith(_PACKAGES) for name in _names(path))


def check_python(path: Path, python: str) -> None:
    """Raises Stopped where the packages inside are compiled for another Python than `python` (3.11, …)."""
    for name in sorted(name for name in _names(path) if name.startswith(_PACKAGES)):
        found = _COMPILED.search(name)
        if found and f"{found[1]}.{found[2]}" != python:
            raise Stopped(f"{path}: {name} is for Python {found[1]}.{found[2]}, found --python {python}")


def zipped(path: Path, into: Path) -> Path:
    """The zip file of a staged folder; a zip file is taken as it is."""
    if path.is_file():
        return path
    write_zip(path, into, EARLIEST)
    return into


def _fits(path: Path, bundle: str, backend: str, names: Collection[str]) -> bool:
    """Whether every network of the bundle has its file for the backend."""
    try:
        networks = json.loads(_read(path, bundle))["networks"].values()
        files = [network["artifacts"].get(backend, {}).get("file") for network in networks]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Stopped(f"{path}: {bundle} in it is no bundle's: {error!r}") from error
    return all(file and f"{bundle.rpartition('/')[0]}/{file}" in names for file in files)


def _read(path: Path, name: str) -> bytes:
    if path.is_dir():
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as package:
        return package.read(name)


def _names(path: Path) -> set[str]:
    if path.is_dir():
        return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    try:
        with zipfile.ZipFile(path) as package:
            return set(package.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise Stopped(f"{path}: expected a staged folder or its zip file: {error}") from error
