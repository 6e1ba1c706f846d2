"""A mask as a picture of one bit a pixel."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shared.masks.placed import Placed
    from shared.tensors import UInt8

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ONE_BIT, _GREY, _UP = 1, 0, 2  # PNG, third edition: bit depth, colour type, filter type
_BAND_BYTES = 1 << 20


def png(placed: Placed) -> bytes:
    """The mask in its whole picture, white on black, one bit a pixel."""
    height, width = placed.source_hw
    header = struct.pack(">IIBBBBB", width, height, _ONE_BIT, _GREY, 0, 0, 0)
    deflate = zlib.compressobj()
    pixels = b"".join([deflate.compress(rows) for rows in _lines(placed)] + [deflate.flush()])
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _lines(placed: Placed) -> Iterator[bytes]:
    """The picture's lines, each the difference from the one above, which is nothing but along the mask's edge."""
    height, width = placed.source_hw
    rows = max(1, _BAND_BYTES // (1 + width))
    above = np.zeros((1, (width + 7) // 8), np.uint8)
    for begin in range(0, height, rows):
        packed = _packed(placed, begin, min(begin + rows, height))
        lines = np.empty((len(packed), 1 + packed.shape[1]), np.uint8)
        lines[:, 0] = _UP
        lines[:, 1:] = packed - np.concatenate([above, packed[:-1]])
        above = packed[-1:]
        yield lines.tobytes()


def _packed(placed: Placed, begin: int, end: int) -> UInt8:
    """The rows from `begin` to `end` of the whole picture, eight pixels a byte."""
    bits = np.zeros((end - begin, placed.source_hw[1]), np.bool_)
    first, last = max(begin, placed.top), min(end, placed.top + placed.bits.shape[0])
    if first < last:
        columns = np.s_[placed.left : placed.left + placed.bits.shape[1]]
        bits[first - begin : last - begin, columns] = placed.bits[first - placed.top : last - placed.top]
    return np.packbits(bits, axis=1)
