"""Pixels -> the bytes of a PNG, JPEG or WebP file."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from shared.errors import NotAcceptable, OutOfMemory

if TYPE_CHECKING:
    from PIL import Image as Pillow

    from shared.geometry import HW

Format = Literal["png", "jpeg", "webp"]

_LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}  # libjpeg's JPEG_MAX_DIMENSION, libwebp's WEBP_MAX_DIMENSION
_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 1},  # 3 takes nearly twice as long for 2 to 9 % fewer bytes, 6 three times
    "jpeg": {"quality": 90, "subsampling": 0},  # 4:2:0 smears thin coloured lines; it saves a sixth
    "webp": {"quality": 85, "method": 2},  # the default, 4, takes twice as long on large pictures
}
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
# Measured: libwebp's own picture and what it works with, most of it for transparency; grey is first made RGB or RGBA.
_WEBP_BYTES = {"L": 10, "LA": 36, "RGB": 6, "RGBA": 32}


def encoded(image: Pillow.Image, format_: Format, quality: int | None = None) -> bytes:
    """`image` (L, LA, RGB or RGBA) as a file; `quality` 1..100 is of jpeg and webp. Raises OutOfMemory."""
    options = _OPTIONS[format_]
    if quality is not None and "quality" in options:
        options = options | {"quality": quality}
    file = BytesIO()
    try:
        image.save(file, format_.upper(), **options)
    except MemoryError as error:
        raise OutOfMemory("there is not enough memory to encode this picture") from error
    return file.getvalue()


def check_sides(hw: HW, format_: Format) -> None:
    """Raises NotAcceptable where the format cannot hold a picture of `hw`."""
    longest = _LONGEST_SIDE.get(format_)
    if longest is not None and max(hw) > longest:
        raise NotAcceptable(
            f"{format_} holds no side longer than {longest} pixels and the picture has {max(hw)}; ask for png",
            limit=longest,
            found=max(hw),
        )


def file_bytes(hw: HW, mode: str) -> int:
    """The most that a finished file has: noise does not compress."""
    return _CHANNELS[mode] * hw[0] * hw[1] + (1 << 20)


def bytes_needed(hw: HW, mode: str, format_: Format) -> int:
    """The most that encoding takes beside the picture itself, the finished file included."""
    working = _WEBP_BYTES[mode] if format_ == "webp" else 0
    return file_bytes(hw, mode) + working * hw[0] * hw[1]
