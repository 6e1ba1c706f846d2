"""Package files of npm and PyPI: which files they hold, and only the wanted ones taken out, to paths that we choose."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

from model_server.failures import Stopped

Entry: TypeAlias = tuple[str, int, Callable[[], IO[bytes] | None]]
"""A file of an archive: its path inside the package, its size in bytes, and what opens it."""

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError)


class Archive:
    """A `.tgz`, `.tar.gz`, `.zip` or `.whl`. Paths are inside the package: the one top folder of npm packages and
    sdists (`package/`, `name-1.0/`) is left out, a wheel has none. Links and devices are as if they were not there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def members(self, folder: str = "") -> dict[str, int]:
        """The files under `folder` with their sizes in bytes, by path relative to it."""
        prefix = f"{folder.strip('/')}/".lstrip("/")
        with self._entries() as entries:
            return {name.removeprefix(prefix): size for name, size, _ in entries if name.startswith(prefix)}

    def extract(self, wanted: Mapping[str, Path]) -> None:
        """Writes each wanted file to its path. Raises Stopped that names what is not in the package."""
        missing = set(wanted)
        with self._entries() as entries:
            for name, _, opened in entries:
                content = opened() if name in missing else None
                if content is not None:
                    with content, wanted[name].open("wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
                    missing.remove(name)
        if missing:
            raise Stopped(f"{self.path.name} holds no {', '.join(sorted(missing))}")

    @contextmanager
    def _entries(self) -> Iterator[Iterator[Entry]]:
        try:
            if zipfile.is_zipfile(self.path):
                with zipfile.ZipFile(self.path) as archive:
                    yield _zip_entries(archive, skip=0 if self.path.suffix == ".whl" else 1)
            else:
                with tarfile.open(self.path) as archive:
                    yield _tar_entries(archive)
        except _BROKEN as error:
            raise Stopped(f"{self.path.name} is not a readable package file: {error}") from error


def _tar_entries(archive: tarfile.TarFile) -> Iterator[Entry]:
    for entry in archive:
        name = _inner(entry.name, skip=1)
        if entry.isreg() and name:
            yield name, entry.size, partial(archive.extractfile, entry)


def _zip_entries(archive: zipfile.ZipFile, *, skip: int) -> Iterator[Entry]:
    for entry in archive.infolist():
        name = _inner(entry.filename, skip)
        if not entry.is_dir() and name:
            yield name, entry.file_size, partial(archive.open, entry)


def _inner(name: str, skip: int) -> str | None:
    """`name` less its first `skip` folders; None for one that points out of the package."""
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts else "/".join(path.parts[skip:]) or None
