"""Encoded bytes -> upright RGB uint8 HWC, within limits that are checked before a pixel is decoded."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile

from shared import encoded
from shared.errors import ImageUndecodable, OutOfMemory

if TYPE_CHECKING:
    from shared.call import Call
    from shared.embeddings import Memo
    from shared.geometry import HW
    from shared.tensors import UInt8

Pillow.MAX_IMAGE_PIXELS = None  # our own limit, which is exact and comes with a status, takes its place

_BAND_PIXELS = 1_000_000
_WHITE = (255, 255, 255)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _ROWS_PER_STRIP = 258, 262, 274, 278  # TIFF 6.0
_TILE_WIDTH, _TILE_LENGTH = 322, 323
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
_GREY = frozenset(("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I", "F"))
# What Pillow's decoders raise on bad bytes, found by feeding them damaged files.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, EOFError, ArithmeticError,
    struct.error, zlib.error, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before any pixel is decoded. `upright_hw` is in source pixels; `mode` is how Pillow
    calls the stored pixels; `alpha` says that something in it may be transparent, `turned` that they do not lie
    upright; `decoder_bytes` is what the decoder holds beside the pixels, however small they are wanted: of a
    progressive JPEG all its coefficients, of a WebP two canvases."""

    format: str
    upright_hw: HW
    mode: str = "RGB"
    alpha: bool = False
    turned: bool = False
    decoder_bytes: int = 0

    @property
    def grey(self) -> bool:
        """Whether the file has no colours."""
        return self.mode in _GREY


@dataclass(frozen=True, slots=True)
class Image:
    """An upright picture. `rgb` [height, width, 3] uint8 0..255 may be of another size than the source. `alpha`
    [height, width] uint8, 255 opaque, is there where it was asked for and the picture has some: `rgb` is then what the
    file has under it, and else lies on white. `grey` says that the file has no colours."""

    rgb: UInt8
    source_hw: HW
    alpha: UInt8 | None = None
    grey: bool = False


class Picture:
    """An encoded picture whose header has been read and found within `max_pixels`. It can be decoded once.

    Raises NotAnImage where the bytes are of no known format, ImageTooLarge, ImageUndecodable.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self._format = encoded.sniff(data)
        _ignore_warnings()
        with _decoder_errors():
            self._data = encoded.checked(data, self._format, max_pixels)
            if self._format == "WEBP":  # Pillow's plugin makes its canvases as soon as it opens the file
                self.header, self._orientation = _webp_header(self._data)
                return
            self._file = _open(self._data, self._format)
            encoded.check_pixels(self._file.size[::-1], max_pixels)
            if self._file.tile and self._file.tile[0][0] == "bmp_rle":
                encoded.check_run_length(self._data, self._file.size[::-1])
            # Pillow turns TIFF files itself, size included.
            exif = b"" if self._format == "TIFF" else self._file.info.get("exif", b"")
            self._orientation = encoded.orientation(exif)
            copied = 0 if self._data is data else len(self._data)
            self.header = _header(self._file, self._orientation, copied + _held_bytes(self._file, self._data))

    def decode(self, hw: HW | None = None, *, alpha: bool = False) -> Image:
        """The pixels, upright, at `hw` (height, width) or in full, with `alpha` kept beside them on request. A JPEG
        that has at least twice as many is decoded at 1/2, 1/4 or 1/8 by its DCT. Raises ImageUndecodable or
        OutOfMemory."""
        with _decoder_errors():
            loaded = self._loaded(hw)
            if alpha and _has_alpha(loaded):
                return self._with_alpha(loaded, hw)
            return Image(self._pixels(_to_rgb(loaded), hw), self.header.upright_hw, grey=self.header.grey)

    def _loaded(self, hw: HW | None) -> Pillow.Image:
        """The stored pixels."""
        if self._format == "WEBP":
            return _first_frame(self._data)
        if hw is not None:
            self._file.draft(None, _turned(hw, self._orientation)[::-1])
        self._file.load()
        return self._file

    def _with_alpha(self, loaded: Pillow.Image, hw: HW | None) -> Image:
        """The colours as the file has them, whatever their alpha, and that."""
        whole = _to_rgba(loaded)
        beside = self._pixels(whole.getchannel("A"), hw)
        pixels = self._pixels(_instead(whole, whole.convert("RGB")), hw)
        return Image(pixels, self.header.upright_hw, beside, self.header.grey)

    def _pixels(self, image: Pillow.Image, hw: HW | None) -> UInt8:
        """`image`, which is closed, upright and at `hw`, as an array."""
        if hw is not None:
            image = _instead(image, _resized(image, _turned(hw, self._orientation)))
        if self._orientation in _UPRIGHT:
            image = _instead(image, image.transpose(_UPRIGHT[self._orientation]))
        pixels = _pixels(image)
        image.close()
        return pixels


class Decoding:
    """One request's picture: what its header says is known at once, its pixels once they are asked for.

    Raises what Picture raises.
    """

    def __init__(self, source: bytes, max_pixels: int, memo: Memo | None = None) -> None:
        self._source = source
        self._picture: Picture | None = Picture(source, max_pixels)
        self._image: Image | None = None
        self._digest = ""
        self.memo = memo
        self.header = self._picture.header

    @classmethod
    def of(cls, image: Image) -> Decoding:
        """A picture whose pixels are there already, whatever size is asked for."""
        return cls._made(Header("", image.source_hw), image)

    @classmethod
    def absent(cls, upright_hw: HW) -> Decoding:
        """A picture of which only the size is known, because something made from it was sent instead."""
        return cls._made(Header("", upright_hw), None)

    @classmethod
    def _made(cls, header: Header, image: Image | None) -> Decoding:
        made = cls.__new__(cls)
        made._source, made._picture, made._image, made._digest = b"", None, image, ""
        made.memo, made.header = None, header
        return made

    @property
    def digest(self) -> str:
        """The sha256 of the encoded bytes; '' where there are none."""
        if self._source and not self._digest:
            self._digest = sha256(self._source).hexdigest()
        return self._digest

    def image(self, hw: HW | None, call: Call, *, alpha: bool = False) -> Image:
        """The pixels, decoded at the first time of asking as Picture.decode does; they are given away, so that their
        memory is free as soon as the one who asked is done with them."""
        if self._image is None:
            self.decode(hw, call, alpha=alpha)
        image, self._image = self._image, None
        assert image is not None, "asked for twice, or there is no picture"
        return image

    def decode(self, hw: HW | None, call: Call, *, alpha: bool = False) -> None:
        """Decodes now what `image` will give."""
        assert self._picture is not None, "decoded already, or there is no picture"
        with call.stage("decode"):
            self._image, self._picture = self._picture.decode(hw, alpha=alpha), None


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


def _first_frame(data: bytes) -> Pillow.Image:
    """A WebP's first picture. The plugin's own `load` would hold its decoder, with two canvases, to the end."""
    opened: Any = _open(data, "WEBP")
    pixels, *_ = opened._get_next()
    opened._decoder = None
    frame = Pillow.frombytes(opened.mode, opened.size, pixels, "raw", opened.rawmode)
    opened.close()
    return frame


def _webp_header(data: bytes) -> tuple[Header, int]:
    """The header, and EXIF's orientation. The decoder has two canvases and a copy of the file (libwebp,
    src/demux/anim_decode.c)."""
    hw, has_alpha, exif = encoded.webp_header(data)
    turn = encoded.orientation(exif)
    own = 8 * hw[0] * hw[1] + len(data)
    return Header("WEBP", _turned(hw, turn), "RGBA" if has_alpha else "RGB", has_alpha, turn != 1, own), turn


def _header(file: Any, orientation: int, decoder_bytes: int) -> Header:
    turn = file.tag_v2.get(_ORIENTATION, 1) if file.format == "TIFF" else orientation
    upright_hw = _turned(file.size[::-1], orientation)
    return Header(file.format, upright_hw, file.mode, _has_alpha(file), turn != 1, decoder_bytes)


def _held_bytes(file: Any, data: bytes) -> int:
    """What the decoder of an opened file holds beside the pixels while it reads them."""
    height, width = int(file.height), int(file.width)
    if file.format == "JPEG" and _is_in_passes(file, data):
        # Two bytes a coefficient, of whole blocks of 8 x 8 (libjpeg's jdcoefct.c).
        most_h, most_v = (max(int(layer[axis]) for layer in file.layer) for axis in (1, 2))
        samples = sum(int(h * v) for _, h, v, _ in file.layer)
        return 2 * samples * -(-width // (8 * most_h)) * 8 * -(-height // (8 * most_v)) * 8
    if file.format == "TIFF" and file.tile[0][0] == "libtiff":  # a strip, or a tile, at a time
        tags = file.tag_v2
        rows = tags.get(_TILE_LENGTH) or min(tags.get(_ROWS_PER_STRIP, height), height)
        bits = tags.get(_BITS_PER_SAMPLE, (8,))
        return int(rows) * int(tags.get(_TILE_WIDTH) or width) * len(file.getbands()) * -(-int(max(bits)) // 8)
    return 0


def _is_in_passes(file: Any, data: bytes) -> bool:
    """Whether no part of a JPEG's picture is whole before its last scan: of progressive ones, and of those whose first
    scan, behind whose header Pillow has stopped reading, is not of all components."""
    scan = data.rfind(b"\xff\xda", 0, file.fp.tell())
    return "progressive" in file.info or data[scan + 4] < len(file.layer)


def _turned(hw: HW, orientation: int) -> HW:
    return hw[::-1] if orientation in _TURNED else hw


_WITH_ALPHA = frozenset(("RGBA", "LA", "PA", "RGBa", "La"))


def _to_rgb(image: Pillow.Image) -> Pillow.Image:
    """Any pixel format as RGB, in the place of `image`; what is transparent is laid on white, 16 bits keep their upper
    8."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        is_inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # Pillow does it for all other depths
        image.close()
        return Pillow.fromarray(~grey if is_inverted else grey).convert("RGB")
    if _has_alpha(image):
        image = _to_rgba(image)
        on_white = Pillow.new("RGB", image.size, _WHITE)
        on_white.paste(image, mask=image)
        return _instead(image, on_white)
    if image.mode in ("1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return _instead(image, image.convert("RGB"))
    raise ImageUndecodable(f"pixels of type {image.mode!r} have no fixed range; save the picture with 8 or 16 bits")


def _to_rgba(image: Pillow.Image) -> Pillow.Image:
    return image if image.mode == "RGBA" else _instead(image, image.convert("RGBA"))


def _has_alpha(image: Pillow.Image) -> bool:
    """Of 16 bits Pillow tells no transparent grey from the others once they are 8."""
    return image.mode in _WITH_ALPHA or ("transparency" in image.info and not image.mode.startswith("I"))


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
    """The pixels of an RGB image [H, W, 3], or of an L image [H, W], in bands: Pillow's own way to an array holds a
    second copy."""
    if image.width * image.height <= _BAND_PIXELS:
        return np.asarray(image)
    rgb = np.empty((image.height, image.width, 3)[: 2 if image.mode == "L" else 3], np.uint8)
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
