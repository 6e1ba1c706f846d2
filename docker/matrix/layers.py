"""What is in the layers of a saved image (`docker save`): every file, and what gzip makes of the whole."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from model_server.failures import Stopped

# Go's default, with which `docker push` and BuildKit compress layers for a registry.
GZIP_LEVEL = 6
_GZIP_WINDOW = 31
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A regular file of a layer; further hard links to it are not counted again."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: `gzip_bytes` is what it is compressed but for the files set apart, `apart_gzip_bytes` those alone."""

    diff_id: str
    made_by: str
    files: tuple[File, ...]
    gzip_bytes: int
    apart_gzip_bytes: int

    @property
    def disk_bytes(self) -> int:
        return sum(file.size for file in self.files)


_NONE: Mapping[str, Layer] = {}


def read(path: Path, set_apart: Callable[[str], bool], known: Mapping[str, Layer] = _NONE) -> Iterator[Layer]:
    """The layers of the image saved at `path`, the lowest first; those `known` by their diff id are not read again.

    Raises Stopped where it is no saved image.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            (manifest,) = json.load(_member(archive, "manifest.json"))
            config = json.load(_member(archive, manifest["Config"]))
            said = [entry.get("created_by", "") for entry in config["history"] if not entry.get("empty_layer")]
            for name, diff_id, made_by in zip(manifest["Layers"], config["rootfs"]["diff_ids"], said, strict=True):
                yield known.get(diff_id) or _layer(_tar(_member(archive, name)), diff_id, made_by, set_apart)
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise Stopped(f"{path}: not one image as `docker save` writes it: {error!r}") from error


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    if found is None:
        raise ValueError(f"{name} is no file")
    return found


def _tar(stream: IO[bytes]) -> IO[bytes]:
    """A layer as it was before some engine compressed it."""
    magic = stream.read(len(_GZIP_MAGIC))
    stream.seek(0)
    unpacked: Any = gzip.GzipFile(fileobj=stream) if magic == _GZIP_MAGIC else stream
    return unpacked  # type: ignore[no-any-return]


def _layer(stream: IO[bytes], diff_id: str, made_by: str, set_apart: Callable[[str], bool]) -> Layer:
    files, ranges = [], []
    with tarfile.open(fileobj=stream, mode="r:") as layer:
        for member in layer:
            if member.isreg():
                path = member.name.removeprefix("./")
                files.append(File(path, member.size, _sha256(_member_of(layer, member))))
                if set_apart(path):
                    ranges.append((member.offset_data, member.offset_data + member.size))
    return Layer(diff_id, made_by, tuple(files), *_gzipped(stream, ranges))


def _member_of(layer: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = layer.extractfile(member)
    assert found is not None, "a regular file has content"
    return found


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _gzipped(stream: IO[bytes], apart: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The compressed lengths of what is outside the ranges `apart`, and of what is inside them."""
    outside, inside = _Gzip(), _Gzip()
    edges = [0, *(edge for part in sorted(apart) for edge in part)]
    stream.seek(0)
    for at, (begin, end) in enumerate(pairwise(edges)):
        (inside if at % 2 else outside).take(stream, end - begin)
    outside.take(stream, None)
    return outside.length(), inside.length()


class _Gzip:
    """The length of a gzip file, of which nothing is kept."""

    def __init__(self) -> None:
        self._compressing = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
        self._length = 0
        self._is_empty = True

    def take(self, stream: IO[bytes], length: int | None) -> None:
        """Takes the next `length` bytes of `stream`, or all that it has."""
        left = length
        while chunk := stream.read(_CHUNK if left is None else min(_CHUNK, left)):
            self._length += len(self._compressing.compress(chunk))
            self._is_empty = False
            left = None if left is None else left - len(chunk)

    def length(self) -> int:
        return 0 if self._is_empty else self._length + len(self._compressing.flush())
