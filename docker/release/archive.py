"""A zip file that is the same, byte for byte, whenever and by whomever it is made from the same files."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

EARLIEST = 315_532_800  # 1980, before which a zip file knows no time
_LEVEL = 9
_UNIX = 3


def write_zip(folder: Path, out: Path, time: int) -> None:
    """Packs the files of `folder`, which lie in the archive's root, all of `time` (seconds since 1970)."""
    moment = datetime.fromtimestamp(max(time, EARLIEST), UTC).timetuple()[:6]
    part = out.with_name(f"{out.name}.part")
    with ZipFile(part, "w", ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name, path in _named(folder):
            entry = ZipInfo(name, moment)
            entry.create_system = _UNIX
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes(), compresslevel=_LEVEL)
    part.replace(out)


def _named(folder: Path) -> list[tuple[str, Path]]:
    return sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
