"""`list`: the known models and those that are here, as a table for a terminal."""

from __future__ import annotations

from pathlib import Path

from model_server.catalog import Entry, read_catalog
from shared.errors import ConfigurationError
from shared.manifest import MANIFEST, read_bundle

_HEAD = ("name", "task", "licence", "size", "here")


def table(models: Path) -> str:
    """One line a model, the known ones first, then what else lies in the folder `models`."""
    catalog = read_catalog()
    here = sorted(path.parent.name for path in models.glob(f"*/{MANIFEST}")) if models.is_dir() else []
    rows = [_known(entry, models / entry.name) for entry in catalog.values()]
    rows += [_own(models / name) for name in here if name not in catalog]
    widths = [max(len(row[at]) for row in [_HEAD, *rows]) for at in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [_HEAD, *rows]
    )


def _known(entry: Entry, folder: Path) -> tuple[str, ...]:
    missing = "ships" if entry.ships else "no: fetch it" if entry.files else "no: export it"
    state = _state(folder) if (folder / MANIFEST).is_file() else missing
    return entry.name, entry.task, entry.licence, f"{entry.size / 1e6:.1f} MB", state


def _own(folder: Path) -> tuple[str, ...]:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        model = read_bundle(folder).model
    except ConfigurationError:
        return folder.name, "?", "?", f"{size / 1e6:.1f} MB", _state(folder)
    return folder.name, model.task, model.licence, f"{size / 1e6:.1f} MB", _state(folder)


def _state(folder: Path) -> str:
    """`check` verifies the checksums; a table must be quick."""
    try:
        read_bundle(folder)
    except ConfigurationError:
        return "broken: see check"
    return "yes"
