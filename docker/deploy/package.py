"""The staged folder, or the zip file of it, that is deployed."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

from docker.deploy.failures import Stopped

# The earliest time that a zip file can hold: the same folder gives the same package.
_TIME = (1980, 1, 1, 0, 0, 0)


def check_staged(path: Path, needed: Collection[str], bundle: str | None) -> None:
    """Raises Stopped unless the folder or zip file `path` has these files, and the bundle."""
    names = _names(path)
    wanted = [*needed, *([f"model_server/models/{bundle}/model.json"] if bundle else [])]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise Stopped(f"{path}: there is no {missing[0]} in it; expected what `make stage` lays out")


def zipped(path: Path, into: Path) -> Path:
    """The zip file of a staged folder; a zip file is taken as it is."""
    if path.is_file():
        return path
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as package:
        for name in sorted(_names(path)):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            package.writestr(entry, (path / name).read_bytes())
    return into


def _names(path: Path) -> set[str]:
    if path.is_dir():
        return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    try:
        with zipfile.ZipFile(path) as package:
            return set(package.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise Stopped(f"{path}: expected a staged folder or its zip file: {error}") from error
