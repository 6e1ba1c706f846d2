"""Encoded pictures as bytes: their format, and what is looked at before a decoder may touch them.

Knows neither Pillow nor numpy. What is refused here would cost a decoder far more time or memory than the picture it
holds is worth, or would lie to the limits.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from shared.errors import ImageTooLarge, ImageUndecodable, NotAnImage

if TYPE_CHECKING:
    from shared.geometry import HW

_ORIENTATION = 0x0112
# What only a hostile file exceeds. Pillow steps through the parts of a file in Python, keeps all of them, and adds up
# some in quadratic time, so that 20 MB of the smallest parts would take it a minute and a gigabyte.
_MAX_PARTS = 100_000
_MAX_JPEG_SEGMENTS = 1_000
_MAX_EXIF_SEGMENTS = 16  # of 64 kB each; EXIF itself says one
# A progressive JPEG has about ten scans; each one passes over the whole picture, so a file of thousands of nearly
# empty ones would keep a core busy for minutes.
_MAX_JPEG_SCANS = 50
_MAX_JPEG_JUNK_BYTES = 4_096
# Pillow's run-length decoder is written in Python: about 0.5 µs a run and 0.1 µs a pixel.
_MAX_RUN_LENGTH_BYTES = 4_000_000
_MAX_RUN_LENGTH_PIXELS = 16_000_000


ENDED = (struct.error, LookupError, ValueError, ArithmeticError, EOFError, zlib.error)
"""What `checked` raises where the bytes end before their structure, or have none."""


def sniff(data: bytes) -> str:
    """The format of a picture by its first bytes, as Pillow names it. Raises NotAnImage."""
    for format_, magics in _MAGIC.items():
        if data.startswith(magics):
            return format_
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    raise NotAnImage("the bytes are not a JPEG, PNG, WebP, GIF, BMP or TIFF picture")


_MAGIC = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}


def checked(data: bytes, format_: str, max_pixels: int) -> bytes:
    """The bytes that a decoder of that format may have: all of them, or those that make the picture.

    Raises ImageTooLarge or ImageUndecodable; and one of ENDED.
    """
    return _CHECKS[format_](data, max_pixels)


def check_pixels(hw: HW, max_pixels: int) -> None:
    height, width = hw
    if height < 1 or width < 1:
        raise ImageUndecodable(f"the picture's header says {width} x {height} pixels")
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"the picture has {width} x {height} pixels; the limit is {max_pixels} in all",
            limit=max_pixels,
            found=height * width,
        )


def check_run_length(data: bytes, hw: HW) -> None:
    check_pixels(hw, _MAX_RUN_LENGTH_PIXELS)
    if len(data) > _MAX_RUN_LENGTH_BYTES:
        raise ImageUndecodable("the BMP is too large for one with run-length coding; save it as PNG")


# A JPEG marker that begins a segment: neither a stuffed zero, nor fill, nor a restart inside a scan.
_SEGMENT = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_ALONE = frozenset((0x01, 0xD8))  # without a length
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))


def _checked_jpeg(data: bytes, _max_pixels: int) -> bytes:
    """Walks the segments (ITU-T T.81, annex B) as far as a decoder would; a scan of all components is the only one."""
    at, segments, exifs, scans, components = 2, 0, 0, 0, 0
    while match := _SEGMENT.search(data, at):
        marker, body = match[0][1], match.end()
        if marker == 0xD9:
            break
        segments += 1
        exifs += marker == 0xE1 and data[body + 2 : body + 6] == b"Exif"
        scans += marker == 0xDA
        if scans > _MAX_JPEG_SCANS:
            raise ImageUndecodable(f"the JPEG has more than {_MAX_JPEG_SCANS} scans")
        is_junk = not scans and body - at > _MAX_JPEG_JUNK_BYTES
        if segments > _MAX_JPEG_SEGMENTS or exifs > _MAX_EXIF_SEGMENTS or is_junk:
            raise ImageUndecodable("the JPEG has more metadata or junk in it than a picture can need")
        if marker in _SEQUENTIAL:
            components = data[body + 7]
        elif marker == 0xDA and components == data[body + 2]:
            break
        at = body if marker in _ALONE else body + int.from_bytes(data[body : body + 2])
    return data


_PNG_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))


def _bare_png(data: bytes, _max_pixels: int) -> bytes:
    """Only the chunks that make pixels, and the orientation before them, wherever it stood: what else a PNG may
    carry (profiles, texts, animations) costs Pillow time and memory and can make it refuse a good picture."""
    whole = memoryview(data)
    kept, exif, at, kind = [whole[:8]], b"", 8, b""
    while at + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind in _PNG_PIXELS:
            kept.append(whole[at:end])
        elif kind == b"eXIf" and zlib.crc32(whole[at + 4 : end - 4]) == int.from_bytes(whole[end - 4 : end]):
            exif = data[at:end]
        if len(kept) > _MAX_PARTS:
            raise ImageUndecodable(f"the PNG has more than {_MAX_PARTS} chunks")
        at = end
    is_bare = sum(map(len, kept)) == len(data)
    return data if is_bare else b"".join((*kept[:2], exif, *kept[2:]))


def _checked_gif(data: bytes, _max_pixels: int) -> bytes:
    """Counts what stands before the first frame (GIF89a, sections 15 to 26)."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    parts = 0
    while data[at] not in b",;":
        is_extension = data[at] == 0x21
        at += 2 if is_extension else 1
        while is_extension and data[at] and parts <= _MAX_PARTS:
            at += 1 + data[at]
            parts += 1
        at += is_extension
        parts += 1
        if parts > _MAX_PARTS:
            raise ImageUndecodable("the GIF has more comments or junk in it than a picture can need")
    return data


_TILE_SIDES = frozenset((322, 323))
_OPAQUE = frozenset((1, 2, 7))  # bytes and text, of which Pillow makes no Python numbers


def _checked_tiff(data: bytes, max_pixels: int) -> bytes:
    """Tiles may be larger than the picture: the decoder would make room for one, whatever it says."""
    if data[:4] == b"MM\0+":
        raise ImageUndecodable("a big-endian BigTIFF cannot be read; save it little-endian, or as PNG")
    tile_pixels = 1
    for tag, kind, count, value in _tiff_tags(data):
        if count > _MAX_PARTS and kind not in _OPAQUE:
            raise ImageUndecodable(f"the TIFF has {count} values in its tag {tag}; the limit is {_MAX_PARTS}")
        if tag in _TILE_SIDES:
            if value is None:
                raise ImageUndecodable("the TIFF has tiles of unknown size")
            tile_pixels *= value
    if tile_pixels > max_pixels:
        raise ImageTooLarge("the TIFF's tiles are too large", limit=max_pixels, found=tile_pixels)
    return data


_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I"}


def _tiff_tags(data: bytes) -> Iterator[tuple[int, int, int, int | None]]:
    """Tag, type, count and, where it is one whole number, value of each entry of the first directory (TIFF 6.0,
    section 2; BigTIFF with its wider fields). Raises struct.error where the bytes end."""
    order, is_big = "<" if data[:1] == b"I" else ">", b"+" in data[2:4]
    wide, entry, value_at, size = ("Q", "HHQ", 12, 20) if is_big else ("I", "HHI", 8, 12)
    (directory,) = struct.unpack_from(order + wide, data, 8 if is_big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, directory)
    first = directory + (8 if is_big else 2)
    for at in range(first, first + size * entries, size):
        tag, kind, count = struct.unpack_from(order + entry, data, at)
        number = _TIFF_NUMBERS.get(kind) if count == 1 else None
        yield tag, kind, count, None if number is None else struct.unpack_from(order + number, data, at + value_at)[0]


def orientation(exif: bytes) -> int:
    """What an EXIF block says of the picture's place; 1, upright, where it says nothing that can be read."""
    try:
        for tag, _, _, value in _tiff_tags(exif.removeprefix(b"Exif\0\0")):
            if tag == _ORIENTATION:
                return value if value is not None and 1 <= value <= 8 else 1
    except struct.error:
        pass  # a picture with damaged metadata is still a picture
    return 1


def _checked_webp(data: bytes, max_pixels: int) -> bytes:
    """Pillow's WebP plugin makes its canvases when it opens the file, so the size has to be known before."""
    hw, _, _ = webp_header(data)
    check_pixels(hw, max_pixels)
    return data


def webp_header(data: bytes) -> tuple[HW, bool, bytes]:
    """Canvas size, whether there is transparency, and the EXIF block, b"" where there is none (RFC 9649, section 2.5 to
    2.7). Raises ImageUndecodable."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise ImageUndecodable("the WebP file ends inside its header")
    if kind == b"VP8X":
        hw = int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
        return hw, bool(body[0] & 0x10), _webp_exif(data) if body[0] & 0x08 else b""
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1), bool(bits >> 28 & 1), b""
    if kind == b"VP8 ":
        hw = int.from_bytes(body[8:10], "little") & 0x3FFF, int.from_bytes(body[6:8], "little") & 0x3FFF
        return hw, False, b""
    raise ImageUndecodable("the WebP file begins with an unknown chunk")


def _webp_exif(data: bytes) -> bytes:
    at = 12
    for _ in range(_MAX_PARTS):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in (b"", b"EXIF"):
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return b""


def _unchecked(data: bytes, _max_pixels: int) -> bytes:
    return data


_CHECKS: dict[str, Callable[[bytes, int], bytes]] = {
    "JPEG": _checked_jpeg,
    "PNG": _bare_png,
    "WEBP": _checked_webp,
    "GIF": _checked_gif,
    "BMP": _unchecked,
    "TIFF": _checked_tiff,
}
