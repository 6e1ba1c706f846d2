"""The known bundles, one JSON file each: what a bundle is, and where every file of it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from model_server.failures import Stopped
from shared.validation import Mismatch, convert, parse_json, suggest

FOLDER = Path(__file__).resolve().parent
SHIPPED = FOLDER.parent / "models"

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class Download(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published file: its URL (see model_server.sources), and what it must be."""

    source: str
    sha256: Sha256
    size: int


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a bundle. `source` is null for one that ships with the project."""

    file: str
    sha256: Sha256
    size: int
    source: str | None = None


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One known bundle. `manifest` becomes its model.json where none of `files` is that; `export` is what its exporter
    (see model_server.export) makes it from, which is the only way to get one without `files`."""

    name: str
    about: str
    task: str
    licence: str
    files: tuple[File, ...]
    manifest: dict[str, Any] | None = None
    export: Download | None = None

    @property
    def ships(self) -> bool:
        """Whether every file comes with the project."""
        return bool(self.files) and all(file.source is None for file in self.files)

    @property
    def size(self) -> int:
        """In bytes; where there are no files yet, of what they are made from."""
        return sum(file.size for file in self.files or (self.export,) if file)


def read_catalog(folder: Path = FOLDER) -> dict[str, Entry]:
    """Every entry by name, in order. Raises Stopped that names the file and the field."""
    entries = [_read(path) for path in sorted(folder.glob("*.json"))]
    return {entry.name: entry for entry in entries}


def find_entry(name: str) -> Entry:
    entries = read_catalog()
    if name not in entries:
        raise Stopped(f"no known model is called {name!r}; {suggest(name, list(entries))}")
    return entries[name]


def _read(path: Path) -> Entry:
    try:
        entry = convert(parse_json(path.read_bytes()), Entry)
    except (ValueError, Mismatch) as error:
        raise Stopped(f"catalog/{path.name}: {error}") from error
    if entry.name != path.stem:
        raise Stopped(f"catalog/{path.name}: name: expected {path.stem!r}, found {entry.name!r}")
    return entry
