"""Encoded bytes -> upright RGB uint8 HWC, within limits that are checked before a pixel is decoded."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile

from shared.errors import ImageTooLarge, ImageUndecodable, NotAnImage, OutOfMemory

if TYPE_CHECKING:
    from shared.geometry import HW
    from shared.tensors import UInt8

Pillow.MAX_IMAGE_PIXELS = None  # our own limit, which is exact and comes with a status, takes its place

_WHITE = (255, 255, 255)
_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF 2.32, tag 274: what brings the stored picture upright
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_TURNED = frozenset((5, 6, 7, 8))
# What only a hostile file exceeds. Pillow steps through the parts of a file in Python, keeps all of them, and adds up
# some in quadratic time, so that 20 MB of the smallest parts would take it a minute and a gigabyte.
_MAX_PARTS = 100_000
_MAX_JPEG_SEGMENTS = 1_000
# A progressive JPEG has about ten scans; each one passes over the whole picture, so a file of thousands of nearly
# empty ones would keep a core busy for minutes.
_MAX_JPEG_SCANS = 50
_MAX_JPEG_JUNK_BYTES = 4_096
# Pillow's run-length decoder is written in Python: about 0.5 µs a run and 0.1 µs a pixel.
_MAX_RUN_LENGTH_BYTES = 4_000_000
_MAX_RUN_LENGTH_PIXELS = 16_000_000
# What Pillow's decoders raise on bad bytes, found by feeding them damaged files.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, EOFError, ArithmeticError,
    struct.error, zlib.error, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before any pixel is decoded. `upright_hw` is in source pixels."""

    format: str
    upright_hw: HW


@dataclass(frozen=True, slots=True)
class Image:
    """An upright picture. `rgb` [height, width, 3] uint8 0..255 may be decoded smaller than `source_hw`."""

    rgb: UInt8
    source_hw: HW


class Picture:
    """An encoded picture whose header has been read and found within `max_pixels`. It can be decoded once.

    Raises NotAnImage where the bytes are of no known format, ImageTooLarge, ImageUndecodable.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self._format = sniff(data)
        _ignore_warnings()
        with _decoder_errors():
            data = _CHECKS[self._format](data, max_pixels)
            self._file = _open(data, self._format)
            _check_pixels(self._file.size[::-1], max_pixels)
            if self._file.tile and self._file.tile[0][0] == "bmp_rle":
                _check_run_length(data, self._file.size[::-1])
        # Pillow turns TIFF files itself, size included.
        self._orientation = 1 if self._format == "TIFF" else _orientation(self._file.info.get("exif", b""))
        self.header = Header(self._format, _turned(self._file.size[::-1], self._orientation))

    def decode(self, at_least_hw: HW | None = None) -> Image:
        """The pixels, upright. With `at_least_hw` the result may be smaller than the source, but not smaller than
        that: a JPEG is then decoded at 1/2, 1/4 or 1/8 by its DCT, anything else is averaged down after decoding.
        Raises ImageUndecodable or OutOfMemory."""
        with _decoder_errors():
            if at_least_hw is not None:
                at_least_hw = _turned(at_least_hw, self._orientation)
                self._file.draft(None, at_least_hw[::-1])
            self._file.load()
            image = _to_rgb(self._file)
            if image is not self._file:
                self._file.close()
            if at_least_hw is not None:
                image = _reduced(image, at_least_hw)
            if self._orientation in _UPRIGHT:
                image = image.transpose(_UPRIGHT[self._orientation])
            return Image(np.asarray(image), self.header.upright_hw)


def resized(rgb: UInt8, hw: HW) -> UInt8:
    """`rgb` [H, W, 3] uint8 -> [h, w, 3], bilinear with anti-aliasing (Pillow's)."""
    if rgb.shape[:2] == hw:
        return rgb
    return np.asarray(Pillow.fromarray(rgb).resize(hw[::-1], Pillow.Resampling.BILINEAR, reducing_gap=2.0))


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
_PLUGINS = {
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),  # not its factory: of several pictures in one the first is wanted
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
}


def _open(data: bytes, format_: str) -> ImageFile.ImageFile:
    """The one plugin that the bytes ask for: Pillow's own `open` would import five, or all of them."""
    module, factory = _PLUGINS[format_]
    opened: ImageFile.ImageFile = getattr(import_module(f"PIL.{module}"), factory)(BytesIO(data))
    if format_ == "TIFF":
        opened.is_animated = True  # type: ignore[attr-defined]  # else Pillow parses its EXIF, however large
    return opened


def _check_pixels(hw: HW, max_pixels: int) -> None:
    height, width = hw
    if height < 1 or width < 1:
        raise ImageUndecodable(f"the picture's header says {width} x {height} pixels")
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"the picture has {width} x {height} pixels; the limit is {max_pixels} in all",
            limit=max_pixels,
            found=height * width,
        )


def _check_run_length(data: bytes, hw: HW) -> None:
    _check_pixels(hw, _MAX_RUN_LENGTH_PIXELS)
    if len(data) > _MAX_RUN_LENGTH_BYTES:
        raise ImageUndecodable("the BMP is too large for one with run-length coding; save it as PNG")


# A JPEG marker that begins a segment: neither a stuffed zero, nor fill, nor a restart inside a scan.
_SEGMENT = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_ALONE = frozenset((0x01, 0xD8))  # without a length
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))


def _checked_jpeg(data: bytes, _max_pixels: int) -> bytes:
    """Walks the segments (ITU-T T.81, annex B) as far as a decoder would; a scan of all components is the only one."""
    at, segments, scans, components = 2, 0, 0, 0
    while match := _SEGMENT.search(data, at):
        marker, body = match[0][1], match.end()
        if marker == 0xD9:
            break
        segments += 1
        scans += marker == 0xDA
        if scans > _MAX_JPEG_SCANS:
            raise ImageUndecodable(f"the JPEG has more than {_MAX_JPEG_SCANS} scans")
        if segments > _MAX_JPEG_SEGMENTS or (not scans and body - at > _MAX_JPEG_JUNK_BYTES):
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


_PHOTOMETRIC = 262
_TILE_SIDES = frozenset((322, 323))
_TIFF_ARRAYS = frozenset((258, 273, 320, 324, 338, 339))  # those that Pillow makes Python numbers of


def _checked_tiff(data: bytes, max_pixels: int) -> bytes:
    """Tiles may be larger than the picture: the decoder would make room for one, whatever it says."""
    if data[:4] == b"MM\0+":
        raise ImageUndecodable("a big-endian BigTIFF cannot be read; save it little-endian, or as PNG")
    tile_pixels = 1
    for tag, count, value in _tiff_tags(data):
        if tag in _TIFF_ARRAYS and count > _MAX_PARTS:
            raise ImageUndecodable(f"the TIFF has {count} strips, tiles or colours; the limit is {_MAX_PARTS}")
        if tag in _TILE_SIDES:
            if value is None:
                raise ImageUndecodable("the TIFF has tiles of unknown size")
            tile_pixels *= value
    if tile_pixels > max_pixels:
        raise ImageTooLarge("the TIFF's tiles are too large", limit=max_pixels, found=tile_pixels)
    return data


_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I"}


def _tiff_tags(data: bytes) -> Iterator[tuple[int, int, int | None]]:
    """Tag, count and, where it is one whole number, value of each entry of the first directory (TIFF 6.0, section 2;
    BigTIFF with its wider fields). Raises struct.error where the bytes end."""
    order, is_big = "<" if data[:1] == b"I" else ">", b"+" in data[2:4]
    wide, entry, value_at, size = ("Q", "HHQ", 12, 20) if is_big else ("I", "HHI", 8, 12)
    (directory,) = struct.unpack_from(order + wide, data, 8 if is_big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, directory)
    first = directory + (8 if is_big else 2)
    for at in range(first, first + size * entries, size):
        tag, kind, count = struct.unpack_from(order + entry, data, at)
        number = _TIFF_NUMBERS.get(kind) if count == 1 else None
        yield tag, count, None if number is None else struct.unpack_from(order + number, data, at + value_at)[0]


def _orientation(exif: bytes) -> int:
    """What an EXIF block says of the picture's place; 1, upright, where it says nothing that can be read."""
    try:
        for tag, _, value in _tiff_tags(exif.removeprefix(b"Exif\0\0")):
            if tag == _ORIENTATION:
                return value if value in _UPRIGHT else 1
    except struct.error:
        pass  # a picture with damaged metadata is still a picture
    return 1


def _checked_webp(data: bytes, max_pixels: int) -> bytes:
    """Pillow's WebP plugin makes its canvases when it opens the file, so the size has to be known before."""
    _check_pixels(_webp_hw(data), max_pixels)
    return data


def _webp_hw(data: bytes) -> HW:
    """Canvas size from a WebP header (RFC 9649, section 2.5 to 2.7)."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise ImageUndecodable("the WebP file ends inside its header")
    if kind == b"VP8X":
        return int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(body[8:10], "little") & 0x3FFF, int.from_bytes(body[6:8], "little") & 0x3FFF
    raise ImageUndecodable("the WebP file begins with an unknown chunk")


def _unchecked(data: bytes, _max_pixels: int) -> bytes:
    return data


_CHECKS = {
    "JPEG": _checked_jpeg,
    "PNG": _bare_png,
    "WEBP": _checked_webp,
    "GIF": _checked_gif,
    "BMP": _unchecked,
    "TIFF": _checked_tiff,
}


def _turned(hw: HW, orientation: int) -> HW:
    return hw[::-1] if orientation in _TURNED else hw


def _to_rgb(image: Pillow.Image) -> Pillow.Image:
    """Any pixel format as RGB; what is transparent is laid on white, 16 bits keep their upper 8."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        is_inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # Pillow does it for all other depths
        return Pillow.fromarray(~grey if is_inverted else grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        on_white = Pillow.new("RGB", image.size, _WHITE)
        on_white.paste(image, mask=image.getchannel("A"))
        return on_white
    if image.mode in ("1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return image.convert("RGB")
    raise ImageUndecodable(f"pixels of type {image.mode!r} have no fixed range; save the picture with 8 or 16 bits")


def _reduced(image: Pillow.Image, at_least_hw: HW) -> Pillow.Image:
    """Averaged down by a whole factor, to no less than twice `at_least_hw`, which leaves the last step to a filter."""
    factor = min(image.height // at_least_hw[0], image.width // at_least_hw[1]) // 2
    return image.reduce(factor) if factor >= 2 else image


def _ignore_warnings() -> None:
    """Pillow warns of damaged metadata, which is no news here: the picture decodes or it does not. Asked for on every
    use, because a test runner puts the filters back."""
    if _FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def _decoder_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory("there is not enough memory to decode this picture") from error
    except _DECODER_ERRORS as error:
        raise ImageUndecodable("the picture is damaged or truncated and cannot be decoded") from error
