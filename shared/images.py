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

from shared import encoded
from shared.errors import ImageUndecodable, OutOfMemory

if TYPE_CHECKING:
    from shared.geometry import HW
    from shared.tensors import UInt8

Pillow.MAX_IMAGE_PIXELS = None  # our own limit, which is exact and comes with a status, takes its place

_BAND_PIXELS = 1_000_000
_WHITE = (255, 255, 255)
_PHOTOMETRIC = 262
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
    """An upright picture. `rgb` [height, width, 3] uint8 0..255 may be of another size than the source."""

    rgb: UInt8
    source_hw: HW


class Picture:
    """An encoded picture whose header has been read and found within `max_pixels`. It can be decoded once.

    Raises NotAnImage where the bytes are of no known format, ImageTooLarge, ImageUndecodable.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self._format = encoded.sniff(data)
        _ignore_warnings()
        with _decoder_errors():
            data = encoded.checked(data, self._format, max_pixels)
            self._file = _open(data, self._format)
            encoded.check_pixels(self._file.size[::-1], max_pixels)
            if self._file.tile and self._file.tile[0][0] == "bmp_rle":
                encoded.check_run_length(data, self._file.size[::-1])
        # Pillow turns TIFF files itself, size included.
        self._orientation = 1 if self._format == "TIFF" else encoded.orientation(self._file.info.get("exif", b""))
        self.header = Header(self._format, _turned(self._file.size[::-1], self._orientation))

    def decode(self, hw: HW | None = None) -> Image:
        """The pixels, upright, at `hw` (height, width) or in full. A JPEG that has at least twice as many is decoded at
        1/2, 1/4 or 1/8 by its DCT. Raises ImageUndecodable or OutOfMemory."""
        with _decoder_errors():
            if hw is not None:
                self._file.draft(None, _turned(hw, self._orientation)[::-1])
            self._file.load()
            image = _instead(self._file, _to_rgb(self._file))
            if hw is not None:
                image = _instead(image, _resized(image, _turned(hw, self._orientation)))
            if self._orientation in _UPRIGHT:
                image = _instead(image, image.transpose(_UPRIGHT[self._orientation]))
            pixels = _pixels(image)
            image.close()
            return Image(pixels, self.header.upright_hw)


def resized(rgb: UInt8, hw: HW) -> UInt8:
    """`rgb` [H, W, 3] uint8 -> [h, w, 3], bilinear with anti-aliasing (Pillow's)."""
    if rgb.shape[:2] == hw:
        return rgb
    return np.asarray(_resized(Pillow.fromarray(rgb), hw))


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


def _resized(image: Pillow.Image, hw: HW) -> Pillow.Image:
    """Bilinear over all pixels that a new one covers; far larger pictures are first averaged by a whole factor."""
    return image if image.size == hw[::-1] else image.resize(hw[::-1], Pillow.Resampling.BILINEAR, reducing_gap=2.0)


def _ignore_warnings() -> None:
    """Pillow warns of damaged metadata, which is no news here: the picture decodes or it does not. Asked for on every
    use, because a test runner puts the filters back."""
    if _FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def _instead(old: Pillow.Image, new: Pillow.Image) -> Pillow.Image:
    """`new`; the pixels of `old` are given back at once, not when the last reference to it goes."""
    if new is not old:
        old.close()
    return new


def _pixels(image: Pillow.Image) -> UInt8:
    """The pixels of an RGB image [H, W, 3], in bands: Pillow's own way to an array holds a second copy."""
    if image.width * image.height <= _BAND_PIXELS:
        return np.asarray(image)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = (0, top, image.width, min(top + rows, image.height))
        rgb[top : top + rows] = np.asarray(image.crop(band))
    return rgb


@contextmanager
def _decoder_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory("there is not enough memory to decode this picture") from error
    except _DECODER_ERRORS as error:
        raise ImageUndecodable("the picture is damaged or truncated and cannot be decoded") from error
