"""Pictures that lie, break off, blow up or never end, made on the spot.

Each maker gives the bytes of one file of at most about 20 MB, the size that a request may have. `HOSTILE` names them
all; `TOO_LARGE` are those whose header claims more than a server should ever decode, `FOREIGN` those that are no
picture of a known format. Run as a program it feeds every one to the decoder and writes, for each, what came out, how
long it took and how far memory rose:

    python -m tests.hostile_pictures
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image as Pillow

MAX_PIXELS = 4_000_000
_FLOOD = 16_000_000  # bytes; a flood of the smallest possible parts
Maker = Callable[[], bytes]


def photo(height: int = 48, width: int = 64) -> Pillow.Image:
    """A smooth RGB picture whose four corners differ, so that a turn or a wrong colour shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / max(height - 1, 1), x / max(width - 1, 1)
    rgb = np.stack([255 * x, 255 * y, 255 * (1 - x) * (1 - y)], axis=-1)
    return Pillow.fromarray(rgb.astype(np.uint8))


def saved(image: Pillow.Image, format_: str, **options: object) -> bytes:
    """`image` as the bytes of a file."""
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """`data` with the bytes at `at` overwritten."""
    return data[:at] + new + data[at + len(new) :]


@cache
def zeros(megabytes: int) -> bytes:
    """A zlib stream of that many megabytes of nothing; about a thousandth of it."""
    squeeze = zlib.compressobj(9)
    return b"".join(squeeze.compress(bytes(1_000_000)) for _ in range(megabytes)) + squeeze.flush()


# PNG


def png_chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, bits: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_rows(width: int = 8, height: int = 8, channels: int = 3) -> bytes:
    return png_chunk(b"IDAT", zlib.compress((b"\0" + bytes(range(channels)) * width) * height))


def png_with(*extra: bytes) -> bytes:
    return png(png_header(8, 8), *extra, png_rows(), png_chunk(b"IEND"))


_PNG: dict[str, Maker] = {
    "png with zero width": lambda: png(png_header(0, 8), png_rows(), png_chunk(b"IEND")),
    "png with zero height": lambda: png(png_header(8, 0), png_rows(), png_chunk(b"IEND")),
    "png without pixels": lambda: png(png_header(8, 8), png_chunk(b"IEND")),
    "png that is only its signature": png,
    "png without a header": lambda: png(png_rows(), png_chunk(b"IEND")),
    "png with a short header": lambda: png(png_chunk(b"IHDR", b"\0\0\0\x08"), png_rows()),
    "png with a wrong header checksum": lambda: png(png_header(8, 8)[:-1] + b"!", png_rows(), png_chunk(b"IEND")),
    "png with a wrong pixel checksum": lambda: png(png_header(8, 8), png_rows()[:-1] + b"!", png_chunk(b"IEND")),
    "png with a wrong text checksum": lambda: png_with(png_chunk(b"tEXt", b"a\0b")[:-1] + b"!"),
    "png with an unheard-of bit depth": lambda: png(png_header(8, 8, 7), png_rows(), png_chunk(b"IEND")),
    "png with an unheard-of filter": lambda: png(
        png_header(8, 8), png_chunk(b"IDAT", zlib.compress((b"\x09" + bytes(24)) * 8)), png_chunk(b"IEND")
    ),
    "png palette without colours": lambda: png(png_header(8, 8, 8, 3), png_rows(8, 8, 1), png_chunk(b"IEND")),
    "png chunk that claims 4 GB": lambda: png(png_header(8, 8), b"\xff\xff\xff\xffIDAT" + bytes(40)),
    "png text that claims 2 GB": lambda: png(png_header(8, 8), b"\x7f\xff\xff\xfftEXt" + bytes(40)),
    "png pixels that unpack to 300 MB": lambda: png(
        png_header(8, 8), png_chunk(b"IDAT", zeros(300)), png_chunk(b"IEND")
    ),
    "png colour profile that unpacks to 300 MB": lambda: png_with(png_chunk(b"iCCP", b"a\0\0" + zeros(300))),
    "png text that unpacks to 300 MB": lambda: png_with(png_chunk(b"zTXt", b"a\0\0" + zeros(300))),
    "png text behind the pixels that unpacks to 300 MB": lambda: png(
        png_header(8, 8), png_rows(), png_chunk(b"zTXt", b"a\0\0" + zeros(300)), png_chunk(b"IEND")
    ),
    "png with a thousand texts of 1 MB": lambda: png_with(
        *(png_chunk(b"zTXt", b"%d\0\0" % i + zeros(1)) for i in range(1000))
    ),
    "png with ten thousand nameless texts of 1 MB": lambda: png_with(
        *[png_chunk(b"zTXt", b"\0\0" + zeros(1))] * 10_000
    ),
    "png with a thousand profiles of 1 MB": lambda: png_with(*[png_chunk(b"iCCP", b"a\0\0" + zeros(1))] * 1000),
    "png with a million empty chunks": lambda: png_with(png_chunk(b"teSt") * (_FLOOD // 12)),
    "png with a million empty pixel chunks": lambda: png_with(png_chunk(b"IDAT") * (_FLOOD // 12)),
    "png with a million chunks behind the pixels": lambda: png(
        png_header(8, 8), png_rows(), png_chunk(b"teSt") * (_FLOOD // 12), png_chunk(b"IEND")
    ),
    "png with a million texts": lambda: png_with(*(png_chunk(b"tEXt", b"%d\0" % i) for i in range(_FLOOD // 20))),
    "png whose text poses as its transparency": lambda: png_with(png_chunk(b"tEXt", b"transparency\0abc")),
    "png whose text poses as its frame": lambda: png_with(png_chunk(b"tEXt", b"bbox\0abcd")),
    "png whose animation has no frames": lambda: png_with(png_chunk(b"acTL", bytes(8))),
    "png whose animation frame lies outside": lambda: png_with(
        png_chunk(b"acTL", struct.pack(">II", 2, 0)),
        png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 9999, 9999, 7, 7, 1, 1, 0, 0)),
    ),
    "png with damaged orientation": lambda: png_with(png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
}


# JPEG


def jpeg_segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(**options: object) -> bytes:
    return saved(photo(), "JPEG", quality=90, **options)


def jpeg_with(*segments: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(segments) + jpeg()[2:]


def _frame_at(offset: int) -> int:
    """Where the frame header stands in `jpeg()`: marker 0, length 2, bits 4, height 5, width 7, planes 9."""
    return jpeg().index(b"\xff\xc0") + offset


def jpeg_sized(width: int, height: int) -> bytes:
    return patched(jpeg(), _frame_at(5), struct.pack(">HH", height, width))


def jpeg_scans(count: int, height: int, width: int) -> bytes:
    """A progressive JPEG whose last scans, all of them empty, are said again and again."""
    data = saved(Pillow.new("L", (width, height), 128), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    last = data.rindex(b"\xff\xc4") if data.rindex(b"\xff\xc4") > first else data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def jpeg_with_exif(exif: bytes) -> bytes:
    """In as many segments as it takes, and without the JFIF segment, which would say the resolution first."""
    parts = (exif[at : at + 65_000] for at in range(0, len(exif), 65_000))
    plain = jpeg()
    segments = (jpeg_segment(0xE1, b"Exif\0\0" + part) for part in parts)
    return b"\xff\xd8" + b"".join(segments) + plain[plain.index(b"\xff\xdb") :]


def _fractions(count: int) -> bytes:
    """An EXIF directory of a unit and a resolution that is `count` numbers."""
    resolution = struct.pack("<HHII", 0x11A, 5, count, 38)
    unit = struct.pack("<HHIHH", 0x128, 3, 1, 2, 0)
    return b"II*\0\x08\0\0\0\2\0" + resolution + unit + bytes(4) + bytes(range(1, 9)) * count


_JPEG: dict[str, Maker] = {
    "jpeg of no height": lambda: jpeg_sized(64, 0),
    "jpeg of no width": lambda: jpeg_sized(0, 48),
    "jpeg that claims more rows than it has": lambda: jpeg_sized(64, 4800),
    "jpeg with 12 bits a sample": lambda: patched(jpeg(), _frame_at(4), b"\x0c"),
    "jpeg with 200 colour planes": lambda: patched(jpeg(), _frame_at(9), b"\xc8"),
    "jpeg that ends after its tables": lambda: jpeg()[: jpeg().index(b"\xff\xda")] + b"\xff\xd9",
    "jpeg without tables": lambda: b"\xff\xd8" + jpeg()[_frame_at(0) :],
    "jpeg of twenty thousand scans": lambda: jpeg_scans(20_000, 2000, 2000),
    "jpeg of nearly too many scans": lambda: jpeg_scans(40, 2000, 2000),
    "jpeg with a million comments": lambda: jpeg_with(jpeg_segment(0xFE) * (_FLOOD // 4)),
    "jpeg with a million EXIF parts": lambda: jpeg_with(jpeg_segment(0xE1, b"Exif\0\0ab") * (_FLOOD // 12)),
    "jpeg with 240 EXIF parts of 64 kB": lambda: jpeg_with(jpeg_segment(0xE1, b"Exif\0\0" + bytes(65000)) * 240),
    "jpeg whose resolution is a million fractions": lambda: jpeg_with_exif(_fractions(_FLOOD // 8)),
    "jpeg whose resolution is as many fractions as pass": lambda: jpeg_with_exif(_fractions(129_000)),
    "jpeg with a million colour profiles": lambda: jpeg_with(jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1") * (_FLOOD // 18)),
    "jpeg with junk before its frame": lambda: jpeg_with(bytes(_FLOOD)),
    "jpeg with fill before its frame": lambda: jpeg_with(b"\xff" * _FLOOD),
    "jpeg whose preview lies": lambda: jpeg_with(jpeg_segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\xff\xff" + bytes(9))),
    "jpeg whose frames index lies": lambda: jpeg_with(
        jpeg_segment(
            0xE2,
            b"MPF\0II*\0\x08\0\0\0\2\0"
            + struct.pack("<HHII", 0xB001, 4, 1, 9999)
            + struct.pack("<HHII", 0xB002, 7, 16, 50)
            + bytes(40),
        )
    ),
    "jpeg with orientation nine thousand": lambda: jpeg_with(
        jpeg_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x112, 3, 1, 9000) + bytes(4))
    ),
    "jpeg whose EXIF points at itself": lambda: jpeg_with(
        jpeg_segment(
            0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
        )
    ),
}


# GIF


def gif_sub_blocks(body: bytes) -> bytes:
    parts = (body[at : at + 255] for at in range(0, len(body), 255))
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def gif(
    canvas: tuple[int, int], frame: tuple[int, int, int, int], extra: bytes = b"", pixels: bytes | None = None
) -> bytes:
    """Width and height of the canvas; left, top, width and height of the one frame."""
    body = gif_sub_blocks(b"\x84\x51") if pixels is None else pixels
    palette = bytes((0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255))
    screen = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x81, 0, 0) + palette
    return screen + extra + b"," + struct.pack("<HHHHB", *frame, 0) + b"\2" + body + b";"


_GIF: dict[str, Maker] = {
    "gif of no size": lambda: gif((0, 0), (0, 0, 0, 0)),
    "gif without a frame": lambda: gif((8, 8), (0, 0, 8, 8))[:25] + b";",
    "gif frame larger than its canvas": lambda: gif((2, 2), (0, 0, 1500, 1500)),
    "gif frame outside its canvas": lambda: gif((8, 8), (500, 500, 8, 8)),
    "gif frame far outside its canvas": lambda: gif((8, 8), (65535, 65535, 65535, 65535)),
    "gif frame of no size": lambda: gif((8, 8), (0, 0, 0, 0)),
    "gif with a code size of 200": lambda: gif((8, 8), (0, 0, 8, 8)).replace(b"\2\2\x84\x51", b"\xc8\2\x84\x51"),
    "gif with a million comments": lambda: gif((8, 8), (0, 0, 8, 8), b"!\xfe\1a\0" * (_FLOOD // 5)),
    "gif comment of a million parts": lambda: gif((8, 8), (0, 0, 8, 8), b"!\xfe" + b"\1a" * (_FLOOD // 2) + b"\0"),
    "gif with a million empty extensions": lambda: gif((8, 8), (0, 0, 8, 8), b"!\1\0" * (_FLOOD // 3)),
    "gif with junk before its frame": lambda: gif((8, 8), (0, 0, 8, 8), b"\0" * _FLOOD),
    "gif pixels in a million parts": lambda: gif(
        (1900, 1900), (0, 0, 1900, 1900), b"", b"\1\x04" * (_FLOOD // 2) + b"\0"
    ),
    "gif pixels that never end": lambda: gif((8, 8), (0, 0, 8, 8), b"", b"\xff" + b"\x24" * 255),
}


# BMP


def bmp(width: int, height: int, bits: int, pixels: bytes, *, compression: int = 0, colours: int = 0) -> bytes:
    palette = b"".join(bytes((i, 255 - i, i, 0)) for i in range(colours))
    offset = 54 + len(palette)
    file = struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, colours, 0)
    return file + info + palette + pixels


_BMP: dict[str, Maker] = {
    "bmp of no size": lambda: bmp(0, 0, 24, b""),
    "bmp of negative width": lambda: bmp(-8, 8, 24, bytes(192)),
    "bmp of negative height": lambda: bmp(8, -8, 24, bytes(192)),
    "bmp of the lowest height": lambda: bmp(8, -(2**31), 24, bytes(192)),
    "bmp with 3 bits a pixel": lambda: bmp(8, 8, 3, bytes(192)),
    "bmp with 32 bits said and 1 held": lambda: bmp(800, 800, 32, bytes(80_000)),
    "bmp with 65 thousand colours": lambda: patched(bmp(8, 8, 8, bytes(64), colours=3), 46, struct.pack("<I", 65536)),
    "bmp with 4 billion colours": lambda: patched(bmp(8, 8, 8, bytes(64), colours=3), 46, b"\xff" * 4),
    "bmp with an index beyond its colours": lambda: bmp(8, 8, 8, b"\xff" * 64, colours=3),
    "bmp whose pixels begin beyond its end": lambda: patched(bmp(8, 8, 24, bytes(192)), 10, b"\xff\xff\xff\x7f"),
    "bmp whose header claims 4 GB": lambda: patched(bmp(8, 8, 24, bytes(192)), 14, b"\xff" * 4),
    "bmp runs that pass the row": lambda: bmp(8, 8, 8, b"\xff\1" * 200, compression=1, colours=3),
    "bmp jumps that pass the picture": lambda: bmp(8, 8, 8, b"\0\2\xff\xff" * 200, compression=1, colours=3),
    "bmp with a million runs of nothing": lambda: bmp(
        1900, 1900, 8, b"\1\1" * 8 + b"\0\0" * 3 + b"\0\2\0\0" * (_FLOOD // 4), compression=1, colours=3
    ),
    "bmp with a million runs past the row": lambda: bmp(
        1900, 1900, 8, b"\xff\1" * (_FLOOD // 2), compression=1, colours=3
    ),
    "bmp with a million ends of rows": lambda: bmp(1900, 1900, 8, b"\0\0" * (_FLOOD // 2), compression=1, colours=3),
    "bmp with a million runs of one": lambda: bmp(1900, 1900, 4, b"\1\1" * (_FLOOD // 2), compression=2, colours=3),
    "bmp with long steps of rows": lambda: bmp(2_000_000, 2, 8, b"\1\1\0\0" * 20, compression=1, colours=3),
}


# TIFF

_UNIT = {1: "B", 3: "H", 4: "I", 5: "Q", 7: "B", 16: "Q"}


def tiff(
    tags: Mapping[int, tuple[int, list[int]]],
    pixels: bytes = b"",
    *,
    order: str = "<",
    big: bool = False,
    next_: int | None = None,
) -> bytes:
    """Tags are number -> (type, values). The pixels stand first, at offset 16; `next_` is the next directory."""
    first = 16 + len(pixels)
    entry, inline = (20, 8) if big else (12, 4)
    spare = first + (8 if big else 2) + entry * len(tags) + inline
    entries, tail = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        body = struct.pack(f"{order}{len(values)}{_UNIT[kind]}", *values)
        count = struct.pack(order + "HH" + ("Q" if big else "I"), tag, kind, len(values))
        if len(body) <= inline:
            entries += count + body.ljust(inline, b"\0")
        else:
            entries += count + struct.pack(order + ("Q" if big else "I"), spare + len(tail))
            tail += body
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head = magic + (struct.pack(order + "HHQ", 8, 0, first) if big else struct.pack(order + "I", first) + bytes(8))
    following = struct.pack(order + ("Q" if big else "I"), first if next_ is None else next_)
    return head + pixels + struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + following + tail


def tiff_tags(width: int = 8, height: int = 8, **changed: tuple[int, list[int]]) -> dict[int, tuple[int, list[int]]]:
    """An RGB picture of one raw strip at offset 16, its tags by number; a change is named t273=(type, values)."""
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        273: (4, [16]),
        277: (3, [3]),
        278: (4, [height]),
        279: (4, [width * height * 3]),
    }
    return tags | {int(name[1:]): value for name, value in changed.items()}


def tiff_tiled(tile: int, unpacked_megabytes: int) -> bytes:
    """One deflated tile, far larger than the picture that it covers."""
    body = zeros(unpacked_megabytes)
    tags = tiff_tags(t259=(3, [8]), t322=(4, [tile]), t323=(4, [tile]), t324=(4, [16]), t325=(4, [len(body)]))
    return tiff({n: v for n, v in tags.items() if n not in (273, 278, 279)}, body, next_=0)


_RAW = bytes(range(192))


def _tiff_exif() -> bytes:
    """A second directory, said to be EXIF, with one tag of fractions that fills the file."""
    count = _FLOOD // 8
    numbers = struct.pack("<HHHII", 1, 282, 5, count, 34) + struct.pack("<I", 0) + bytes(range(1, 9)) * count
    return tiff(tiff_tags(t34665=(4, [16]), t273=(4, [34])), numbers, next_=0)


def _tiff_chain(count: int) -> bytes:
    """A good first directory, then `count` empty ones, each naming the next."""
    first = tiff(tiff_tags(), _RAW, next_=0)
    at = len(first) + len(first) % 2
    head = tiff(tiff_tags(), _RAW, next_=at).ljust(at, b"\0")
    chain = np.zeros(count, np.dtype([("tags", "<u2"), ("next", "<u4")]))
    chain["next"][:-1] = at + 6 * np.arange(1, count)
    return head + chain.tobytes()


_TIFF: dict[str, Maker] = {
    "tiff of no size": lambda: tiff(tiff_tags(0, 0), _RAW),
    "tiff without tags": lambda: tiff({}, _RAW),
    "tiff whose directory follows itself": lambda: tiff(tiff_tags(), _RAW),
    "tiff whose directory lies beyond its end": lambda: b"II*\0\xff\xff\xff\x7f" + bytes(40),
    "tiff whose next directory lies beyond its end": lambda: tiff(tiff_tags(), _RAW, next_=0x7FFFFFFF),
    "tiff whose pixels lie beyond its end": lambda: tiff(tiff_tags(t273=(4, [0x7FFFFFFF])), _RAW, next_=0),
    "tiff of a strip that claims 4 GB": lambda: tiff(tiff_tags(t279=(4, [0xFFFFFFFF])), _RAW, next_=0),
    "tiff with rows per strip of 4 billion": lambda: tiff(tiff_tags(t278=(4, [0xFFFFFFFF])), _RAW, next_=0),
    "tiff deflated, with rows per strip of 4 billion": lambda: tiff(
        tiff_tags(t278=(4, [0xFFFFFFFF]), t259=(3, [8])), zlib.compress(_RAW), next_=0
    ),
    "tiff with no rows per strip": lambda: tiff(tiff_tags(t278=(4, [0])), _RAW, next_=0),
    "tiff deflated, with no rows per strip": lambda: tiff(
        tiff_tags(t278=(4, [0]), t259=(3, [8])), zlib.compress(_RAW), next_=0
    ),
    "tiff with a million strips": lambda: tiff(tiff_tags(t273=(4, [16] * (_FLOOD // 4)), t278=(4, [1])), _RAW, next_=0),
    "tiff with a million strips that cover it all": lambda: tiff(
        tiff_tags(t273=(4, [16] * (_FLOOD // 4)), t278=(4, [8])), _RAW, next_=0
    ),
    "tiff deflated, with a million strips": lambda: tiff(
        tiff_tags(t273=(4, [16] * (_FLOOD // 8)), t279=(4, [40] * (_FLOOD // 8)), t278=(4, [1]), t259=(3, [8])),
        zlib.compress(bytes(24)),
        next_=0,
    ),
    "tiff of a 900 megapixel tile": lambda: tiff_tiled(30_000, 900),
    "tiff of a 100 megapixel tile": lambda: tiff_tiled(10_000, 300),
    "tiff of a tile of no size": lambda: tiff_tiled(0, 1),
    "tiff with a million samples a pixel": lambda: tiff(tiff_tags(t277=(4, [1_000_000])), _RAW, next_=0),
    "tiff with 4 bytes of samples said in a million": lambda: tiff(
        tiff_tags(t258=(3, [8] * (_FLOOD // 2))), _RAW, next_=0
    ),
    "tiff that unpacks to 300 MB": lambda: tiff(
        tiff_tags(t259=(3, [8]), t279=(4, [len(zeros(300))])), zeros(300), next_=0
    ),
    "tiff with an unheard-of compression": lambda: tiff(tiff_tags(t259=(3, [9999])), _RAW, next_=0),
    "tiff with a palette of nothing": lambda: tiff(
        tiff_tags(t262=(3, [3]), t258=(3, [8]), t277=(3, [1])), _RAW, next_=0
    ),
    "tiff whose width is text": lambda: tiff(tiff_tags(t256=(7, [56, 0, 0, 0, 56, 56])), _RAW, next_=0),
    "tiff with two widths": lambda: tiff(tiff_tags(t256=(4, [8, 9])), _RAW, next_=0),
    "tiff with 65535 tags": lambda: tiff(tiff_tags() | {n: (4, [0]) for n in range(400, 65535)}, _RAW, next_=0),
    "tiff with a million equal tags": lambda: (
        b"II+\0\x08\0\0\0"
        + struct.pack("<Q", 16)
        + struct.pack("<Q", _FLOOD // 20)
        + struct.pack("<HHQQ", 256, 4, 1, 8) * (_FLOOD // 20)
    ),
    "tiff whose resolution is a million fractions": lambda: tiff(
        tiff_tags(t282=(5, [1 << 32 | 1] * (_FLOOD // 8))), _RAW, next_=0
    ),
    "tiff whose EXIF is a million numbers": _tiff_exif,
    "tiff with a million directories": lambda: _tiff_chain(_FLOOD // 6),
    "tiff with orientation nine thousand": lambda: tiff(tiff_tags(t274=(3, [9000])), _RAW, next_=0),
    "tiff jpeg that is none": lambda: tiff(tiff_tags(t259=(3, [7])), _RAW, next_=0),
    "tiff old jpeg that is none": lambda: tiff(tiff_tags(t259=(3, [6])), _RAW, next_=0),
    "tiff fax that is none": lambda: tiff(
        tiff_tags(t259=(3, [4]), t258=(3, [1]), t277=(3, [1]), t262=(3, [0])), _RAW, next_=0
    ),
}


# WebP


def webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_canvas(width: int, height: int, flags: int = 0) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)


def webp_frame(lossless: bool = True, size: tuple[int, int] = (48, 64)) -> bytes:
    """The pixel chunk of a small picture."""
    return saved(photo(*size), "WEBP", lossless=lossless)[12:]


def webp_animated(canvas: tuple[int, int], frame: tuple[int, int, int, int], pixels: bytes, count: int = 2) -> bytes:
    left, top, width, height = frame
    place = b"".join(n.to_bytes(3, "little") for n in (left // 2, top // 2, width - 1, height - 1, 100))
    body = webp_chunk(b"ANMF", place + b"\0" + pixels)
    return webp(webp_canvas(*canvas, flags=2), webp_chunk(b"ANIM", bytes(6)), *[body] * count)


_WEBP: dict[str, Maker] = {
    "webp canvas larger than its frame": lambda: webp(webp_canvas(1900, 1900), webp_frame()),
    "webp canvas smaller than its frame": lambda: webp(webp_canvas(2, 2), webp_frame(size=(1900, 1900))),
    "webp frame that lies about a huge size": lambda: webp(
        webp_canvas(64, 48), webp_chunk(b"VP8L", b"\x2f" + (16383 | 16383 << 14).to_bytes(4, "little") + bytes(20))
    ),
    "webp animation frame larger than its canvas": lambda: webp_animated((8, 8), (0, 0, 64, 48), webp_frame()),
    "webp animation frame outside its canvas": lambda: webp_animated((64, 48), (64, 48, 64, 48), webp_frame()),
    "webp animation frame of another size": lambda: webp_animated((64, 48), (0, 0, 8, 8), webp_frame()),
    "webp with ten thousand frames": lambda: webp_animated((1900, 1900), (0, 0, 64, 48), webp_frame(), 10_000),
    "webp whose EXIF is 16 MB of nothing": lambda: webp(
        webp_canvas(64, 48, 8), webp_frame(), webp_chunk(b"EXIF", b"Exif\0\0" * (_FLOOD // 6))
    ),
    "webp without pixels": lambda: webp(webp_canvas(64, 48)),
    "webp of an unheard-of kind": lambda: webp(webp_chunk(b"VP9 ", bytes(40))),
    "webp that ends in its header": lambda: webp(webp_chunk(b"VP8 ", b""))[:20],
    "webp of no size": lambda: webp(webp_chunk(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + bytes(20))),
    "webp that claims 4 GB": lambda: patched(webp(webp_frame()), 4, b"\xff" * 4),
    "webp chunk that claims 4 GB": lambda: patched(webp(webp_frame()), 16, b"\xff" * 4),
    "webp with a million chunks": lambda: webp(
        webp_canvas(64, 48), webp_chunk(b"TEST", b"") * (_FLOOD // 8), webp_frame()
    ),
}


def _claim(value: int) -> dict[str, Maker]:
    """For every format a header that says `value` pixels for each side, or as many as the format can say."""
    short, mega = min(value, 65535), min(value, 1 << 24)
    return {
        "png": lambda: png(png_header(value, value), png_rows(), png_chunk(b"IEND")),
        "interlaced png": lambda: png(png_header(value, value, 16, 6, 1), png_rows(), png_chunk(b"IEND")),
        "jpeg": lambda: jpeg_sized(short, short),
        "gif": lambda: gif((short, short), (0, 0, 8, 8)),
        "gif frame": lambda: gif((8, 8), (0, 0, short, short)),
        "bmp": lambda: bmp(value, value, 24, bytes(192)),
        "bmp from the top": lambda: bmp(value, -value, 24, bytes(192)),
        "run-length bmp": lambda: bmp(value, value, 8, b"\xff\1" * 200, compression=1, colours=3),
        "tiff": lambda: tiff(tiff_tags(value, value, t279=(4, [192])), _RAW, next_=0),
        "deflated tiff": lambda: tiff(
            tiff_tags(value, value, t259=(3, [8]), t279=(4, [99])), zlib.compress(_RAW), next_=0
        ),
        "bigtiff": lambda: tiff(tiff_tags(value, value, t279=(4, [192])), _RAW, big=True, next_=0),
        "webp canvas": lambda: webp(webp_canvas(mega, mega), webp_frame()),
        "webp animation": lambda: webp_animated((mega, mega), (0, 0, 64, 48), webp_frame()),
        "lossless webp": lambda: webp(
            webp_chunk(b"VP8L", b"\x2f" + (16383 | 16383 << 14).to_bytes(4, "little") + bytes(20))
        ),
        "lossy webp": lambda: webp(webp_chunk(b"VP8 ", b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(20))),
    }


TOO_LARGE: dict[str, Maker] = {f"{name} of 100000 x 100000": make for name, make in _claim(100_000).items()}
_WIDEST: dict[str, Maker] = {f"{name} of 2^31 x 2^31": make for name, make in _claim(2**31 - 1).items()}
FOREIGN: dict[str, Maker] = {
    "nothing": bytes,
    "one byte": lambda: b"\xff",
    "text": lambda: b"not a picture at all\n" * 50,
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "svg with a declaration": lambda: b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><svg>&a;</svg>',
    "html": lambda: b"<!doctype html><html><img src=x></html>",
    "pdf": lambda: b"%PDF-1.7\n" + bytes(200),
    "zip": lambda: b"PK\3\4" + bytes(200),
    "avif": lambda: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200),
    "heic": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200),
    "jpeg 2000": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
    "icon": lambda: b"\0\0\1\0\1\0" + bytes(200),
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(200),
    "photoshop": lambda: b"8BPS\0\1" + bytes(200),
    "netpbm": lambda: b"P6 8 8 255\n" + bytes(200),
    "wave sound": lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(200),
    "a picture behind other bytes": lambda: b"GET / HTTP/1.1\r\n\r\n" + jpeg(),
}


def _noise(seed: int, size: int = 4000) -> bytes:
    return np.random.default_rng(seed).bytes(size)


_MAGIC = {
    "jpeg": b"\xff\xd8\xff",
    "png": b"\x89PNG\r\n\x1a\n",
    "gif": b"GIF89a",
    "bmp": b"BM",
    "tiff": b"II*\0",
    "big-endian tiff": b"MM\0*",
    "bigtiff": b"II+\0",
    "webp": b"RIFF\x20\0\0\0WEBPVP8 ",
    "lossless webp": b"RIFF\x20\0\0\0WEBPVP8L",
}


def _after(magic: bytes, noise_mb: int) -> bytes:
    return magic + (_noise(noise_mb) if noise_mb else b"")


_NOISE: dict[str, Maker] = {}
for _name, _magic in _MAGIC.items():
    _NOISE[f"noise behind the magic of {_name}"] = partial(_after, _magic, 1)
    _NOISE[f"only the magic of {_name}"] = partial(_after, _magic, 0)

HOSTILE: dict[str, Maker] = _PNG | _JPEG | _GIF | _BMP | _TIFF | _WEBP | TOO_LARGE | _WIDEST | FOREIGN | _NOISE


def _megabytes(what: str) -> float:
    """VmRSS, what the process holds, or VmHWM, the most that it held since `clear_refs` was written."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def verdicts() -> Iterator[dict[str, object]]:
    """For each hostile picture: its name, the failure's code or the size that came out, seconds, megabytes of rise."""
    from shared.errors import Failure
    from shared.images import Picture

    Picture(jpeg(), MAX_PIXELS).decode()  # imports are not what is measured
    for name, make in HOSTILE.items():
        data = make()
        Path("/proc/self/clear_refs").write_text("5")
        before, begin = _megabytes("VmRSS"), perf_counter()
        try:
            outcome, status = str(Picture(data, MAX_PIXELS).decode().rgb.shape), 200
        except Failure as failure:
            outcome, status = failure.code, failure.status
        except Exception as error:  # noqa: BLE001  # what must never come out is what is looked for
            outcome, status = repr(error), 500
        yield {
            "name": name,
            "outcome": outcome,
            "status": status,
            "seconds": perf_counter() - begin,
            "rise_mb": _megabytes("VmHWM") - before,
        }


if __name__ == "__main__":
    for verdict in verdicts():
        sys.stdout.write(json.dumps(verdict) + "\n")
        sys.stdout.flush()
