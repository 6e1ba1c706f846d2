"""The files of a bundle: there, and what model.json says they are. Checked once, remembered beside them."""

from __future__ import annotations

import hashlib
import logging
import mmap
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import msgspec

from shared.errors import ConfigurationError
from shared.manifest import NetworkSpec
from shared.tensors import Artifact, DataFile

CACHE = ".thinlens-cache"
SAVED_MODEL = "saved_model.pb"
"""The file of a TensorFlow SavedModel that an artifact names; its variables lie beside it."""

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
_log = logging.getLogger("thinlens")


class _Stamp(msgspec.Struct, frozen=True):
    """A file as it was when its checksum was found right."""

    sha256: str
    size: int
    mtime_ns: int


def verified(network: NetworkSpec, backend: str) -> tuple[Path, Artifact]:
    """The file that `backend` runs, once the sha256 of it and of its data files have been found right.

    The finding is kept in the bundle's cache with each file's size and time, so that the next start need not read them.
    Raises ConfigurationError where a file is not declared, missing or changed.
    """
    artifact = network.artifacts.get(backend)
    field = f"{network.field}.artifacts"
    if artifact is None:
        raise ConfigurationError(f"{field}: nothing for backend {backend!r}, found {sorted(network.artifacts)}")
    for file in artifact.files:
        _verify(network.folder, file, f"{field}.{backend}")
    return network.folder / artifact.file, artifact


def _verify(folder: Path, file: DataFile, field: str) -> None:
    path = folder / file.file
    try:
        stat = path.stat()
        stamp = _Stamp(file.sha256, stat.st_size, stat.st_mtime_ns)
        note = folder / CACHE / f"{file.sha256[:16]}.verified.json"
        if _read(note) == stamp:
            return
        found = sha256_of(path)
    except OSError as error:
        raise ConfigurationError(f"{field}.file: cannot read {file.file!r}: {error.strerror}") from error
    if found != file.sha256:
        raise ConfigurationError(f"{field}.sha256: expected {file.sha256}, but {file.file!r} has {found}")
    write_cache(note, msgspec.json.encode(stamp))


def external_data(path: Path) -> set[str]:
    """The files, relative to its own folder, that an ONNX file has its weights in (`location` of TensorProto's
    external_data, onnx.proto)."""
    if not path.stat().st_size:
        return set()  # cannot be mapped
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return {
            content[found.end() : found.end() + found[1][0]].decode("utf-8", "replace")
            for found in _LOCATION.finditer(content)
        }


def undeclared_data(folder: Path, artifact: Artifact) -> list[str]:
    """The files that the ONNX file has weights in and that model.json does not name: its checksum would vouch for
    nothing."""
    path = folder / artifact.file
    inside = path.parent.relative_to(folder)
    found = {(inside / file).as_posix() for file in external_data(path)}
    return sorted(found - {file.file for file in artifact.data})


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_cache(path: Path, data: bytes) -> bool:
    """Writes a file of the cache whole or not at all. A folder that cannot be written is no failure: it is logged."""
    part = path.with_name(f"{path.name}-{uuid4().hex}.part")
    try:
        path.parent.mkdir(exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        _log.info("the bundle's cache cannot be written (%s); the next start does this work again", error.strerror)
        return False
    return True


def _read(note: Path) -> _Stamp | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=_Stamp)
    except (OSError, msgspec.DecodeError):
        return None
