"""Embeddings in a folder, a file each: a checksum, then shapes, dtypes and numbers, nothing that is ever executed."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import msgspec
import numpy as np

if TYPE_CHECKING:
    from shared.tensors import Tensors

ENDING = ".embedding"
_CHECKSUM_BYTES = 4
_log = logging.getLogger("thinlens")


class _Array(msgspec.Struct, frozen=True):
    shape: tuple[int, ...]
    dtype: Literal["float16", "float32"]
    data: bytes


class _File(msgspec.Struct, frozen=True):
    key: str
    arrays: dict[str, _Array]


def place(folder: Path, key: str) -> Path:
    """Where the arrays of `key`, hex digits, are."""
    return folder / f"{key}{ENDING}"


def exists(folder: Path, key: str) -> bool:
    return place(folder, key).is_file()


def read(folder: Path, key: str) -> Tensors | None:
    """The arrays of `key`; None where there are none, or where the file is damaged, which is logged."""
    path = place(folder, key)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("the embedding %s cannot be read (%s); it is made anew", path.name, error.strerror)
        return None
    try:
        return _decoded(content, key)
    except (ValueError, msgspec.MsgspecError) as error:
        _log.warning("the embedding %s is damaged (%s); it is made anew", path.name, error)
        return None


def write(folder: Path, key: str, arrays: Tensors) -> None:
    """Puts the arrays of `key` in their place, whole or not at all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{key}-{uuid4().hex}.part"
    try:
        part.write_bytes(_encoded(key, arrays))
        part.replace(place(folder, key))
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _encoded(key: str, arrays: Tensors) -> bytes:
    found = {}
    for name, array in arrays.items():
        numbers = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        dtype: Literal["float16", "float32"] = "float16" if array.dtype == np.float16 else "float32"
        found[name] = _Array(array.shape, dtype, numbers.tobytes())
    content = msgspec.msgpack.encode(_File(key, found))
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little") + content


def _decoded(content: bytes, key: str) -> Tensors:
    told, rest = content[:_CHECKSUM_BYTES], memoryview(content)[_CHECKSUM_BYTES:]
    if zlib.crc32(rest).to_bytes(_CHECKSUM_BYTES, "little") != told:
        raise ValueError("its checksum is another")
    file = msgspec.msgpack.decode(rest, type=_File)
    if file.key != key:
        raise ValueError("it is of another picture or model")
    return {
        name: np.frombuffer(array.data, np.dtype(array.dtype).newbyteorder("<")).reshape(array.shape)
        for name, array in file.arrays.items()
    }
