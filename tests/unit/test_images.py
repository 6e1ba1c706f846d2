"""Every kind of picture that people send comes out as the same upright RGB."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow

from shared.encoded import checked, sniff
from shared.errors import ImageTooLarge, ImageUndecodable, NotAnImage
from shared.images import Picture, resized
from tests.hostile_pictures import (
    bmp,
    jpeg_segment,
    photo,
    png,
    png_chunk,
    png_header,
    png_with,
    saved,
    tiff,
    tiff_tags,
    webp,
    webp_canvas,
)

PIXELS = 10_000_000
_STORED = {  # how an upright picture is laid down so that the orientation brings it upright again
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_90,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_270,
}


def rgb(data: bytes) -> np.ndarray:
    return Picture(data, PIXELS).decode().rgb


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The mean difference of two pictures of one size, in grey levels."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(int) - theirs.astype(int)).mean())


PHOTO = np.asarray(photo())


def exif(orientation: int) -> bytes:
    tags = Pillow.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def behind_pixels(data: bytes) -> bytes:
    """A PNG with its eXIf chunk moved behind the pixels."""
    at = data.index(b"eXIf") - 4
    end = at + 12 + struct.unpack_from(">I", data, at)[0]
    return data[:at] + data[end:-12] + data[at:end] + data[-12:]


def turned(kind: str, orientation: int) -> bytes:
    stored = photo().transpose(_STORED[orientation]) if orientation in _STORED else photo()
    note = exif(orientation)
    if kind == "jpeg":
        return saved(stored, "JPEG", quality=97, subsampling=0, exif=note)
    if kind == "tiff":
        return saved(stored, "TIFF", exif=note)
    if kind == "deflated tiff":
        return saved(stored, "TIFF", exif=note, compression="tiff_adobe_deflate")
    if kind == "webp":
        return saved(stored, "WEBP", lossless=True, exif=note)
    data = saved(stored, "PNG", exif=note)
    return behind_pixels(data) if kind == "png, said behind the pixels" else data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "png, said behind the pixels", "webp", "tiff", "deflated tiff"])
def test_every_orientation_gives_the_same_upright_picture(kind: str, orientation: int) -> None:
    picture = Picture(turned(kind, orientation), PIXELS)
    image = picture.decode()
    assert picture.header.upright_hw == image.source_hw == image.rgb.shape[:2] == (48, 64)
    assert apart(image.rgb, PHOTO) < 1


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_a_turned_picture_is_decoded_smaller_in_its_upright_sides(kind: str, orientation: int) -> None:
    big = photo(960, 1280)
    stored = big.transpose(_STORED[6]) if orientation == 6 else big
    image = Picture(saved(stored, kind.upper(), exif=exif(orientation)), PIXELS).decode((90, 160))
    assert image.source_hw == (960, 1280)
    assert image.rgb.shape == (90, 160, 3)
    assert apart(image.rgb, resized(np.asarray(photo(960, 1280)), (90, 160))) < 3


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_leaves_the_picture_as_it_is(value: int) -> None:
    assert Picture(saved(photo(), "JPEG", exif=exif(value)), PIXELS).header.upright_hw == (48, 64)


def test_damaged_exif_leaves_the_picture_as_it_is() -> None:
    broken = [b"", b"Exif\0\0", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", bytes(100)]
    pictures = [saved(photo(), "WEBP", lossless=True, exif=note) for note in broken if note]
    pictures += [png_with(png_chunk(b"eXIf", note)) for note in broken]
    pictures += [b"\xff\xd8" + jpeg_segment(0xE1, b"Exif\0\0" + note) + saved(photo(), "JPEG")[2:] for note in broken]
    assert {Picture(data, PIXELS).decode().rgb.shape for data in pictures} == {(48, 64, 3), (8, 8, 3)}


# Colours


def ycck(image: Pillow.Image) -> bytes:
    """A JPEG as Adobe writes CMYK: as luma and chroma, all of it inverted."""
    cyan, magenta, yellow, black = image.convert("CMYK").split()
    luma = Pillow.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr").split()
    bands = [band.point(lambda value: 255 - value) for band in luma]  # Pillow inverts what it writes
    data = saved(Pillow.merge("CMYK", (*bands, black)), "JPEG", quality=97)
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\2" + data[at + 1 :]


@pytest.mark.parametrize(
    "data",
    [
        saved(photo(), "JPEG", quality=97),
        saved(photo(), "JPEG", quality=97, progressive=True),
        saved(photo(), "JPEG", quality=97, optimize=True, restart_marker_blocks=2),
        saved(photo().convert("CMYK"), "JPEG", quality=97),
        ycck(photo()),
        saved(photo(), "JPEG", quality=97, keep_rgb=True),
        saved(photo(), "MPO", quality=97, save_all=True, append_images=[photo().transpose(_STORED[3])]),
    ],
    ids=["baseline", "progressive", "with restarts", "cmyk", "ycck", "stored as rgb", "several in one"],
)
def test_every_jpeg_gives_the_same_colours(data: bytes) -> None:
    assert apart(rgb(data), PHOTO) < 2.5


def test_a_grey_jpeg_is_grey() -> None:
    grey = rgb(saved(photo().convert("L"), "JPEG", quality=97))
    assert (grey[..., 0] == grey[..., 2]).all()
    assert apart(grey[..., 0], np.asarray(photo().convert("L"))) < 1


def test_a_jpeg_with_megabytes_behind_its_end_is_decoded() -> None:
    film = np.random.default_rng(3).bytes(10_000_000)  # as phones add a short film: scan markers come up by chance
    assert apart(rgb(saved(photo(), "JPEG", quality=97, progressive=True) + film), PHOTO) < 2


def interlaced() -> bytes:
    """Adam7 with all rows unfiltered: 7 passes, each (first row, step, first column, step)."""
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    rows = b"".join(b"\0" + row.tobytes() for y, dy, x, dx in passes for row in PHOTO[y::dy, x::dx])
    return png(png_header(64, 48, interlace=1), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND"))


def deep(colour: int, samples: np.ndarray) -> bytes:
    """A PNG with 16 bits a sample, each of them a 255th larger than 8 bits would be."""
    rows = b"".join(b"\0" + row.tobytes() for row in (samples.astype(">u2") * 257))
    return png(png_header(64, 48, 16, colour), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND"))


OPAQUE = np.dstack([PHOTO, np.full((48, 64), 255, np.uint8)])


@pytest.mark.parametrize(
    "data",
    [
        saved(photo(), "PNG"),
        interlaced(),
        saved(photo().convert("RGBA"), "PNG"),
        deep(2, PHOTO),
        deep(6, OPAQUE),
        saved(photo(), "PNG", save_all=True, append_images=[photo().transpose(_STORED[3])]),
        saved(photo(), "PNG", icc_profile=b"no profile at all"),
        saved(photo(), "WEBP", lossless=True),
        saved(photo().convert("RGBA"), "WEBP", lossless=True, exact=True),
        saved(photo(), "WEBP", lossless=True, save_all=True, append_images=[photo().transpose(_STORED[3])]),
        saved(photo(), "BMP"),
        saved(photo().convert("RGBA"), "BMP"),
        saved(photo(), "TIFF"),
        saved(photo().convert("RGBA"), "TIFF"),
        saved(photo(), "TIFF", compression="tiff_lzw"),
        saved(photo(), "TIFF", compression="tiff_adobe_deflate"),
        saved(photo(), "TIFF", compression="packbits"),
        saved(photo(), "TIFF", big_tiff=True),
        saved(photo(), "TIFF", save_all=True, append_images=[photo().transpose(_STORED[3])]),
        tiff(tiff_tags(64, 48), PHOTO.tobytes(), order=">", next_=0),
        tiff(tiff_tags(64, 48), PHOTO.tobytes(), big=True, next_=0),
        tiff(tiff_tags(64, 48, t258=(3, [16] * 3)), (PHOTO.astype("<u2") * 257).tobytes(), next_=0),
        tiff(tiff_tags(64, 48, t258=(3, [16] * 3)), (PHOTO.astype(">u2") * 257).tobytes(), order=">", next_=0),
        tiff(
            tiff_tags(64, 48, t278=(4, [16]), t273=(4, [16, 3088, 6160]), t279=(4, [3072] * 3)),
            PHOTO.tobytes(),
            next_=0,
        ),
    ],
)
def test_a_lossless_picture_comes_out_exactly(data: bytes) -> None:
    assert apart(rgb(data), PHOTO) == 0


@pytest.mark.parametrize(
    "data",
    [
        saved(photo(), "WEBP", quality=95),
        saved(photo(), "TIFF", compression="jpeg", quality=95),
        saved(photo().quantize(256), "PNG"),
        saved(photo().quantize(256), "GIF"),
        saved(photo().quantize(256), "GIF", save_all=True, append_images=[photo().transpose(_STORED[3])]),
        saved(photo().quantize(256), "BMP"),
        saved(photo().quantize(256), "TIFF"),
        saved(photo().quantize(256), "TIFF", compression="tiff_lzw"),
        saved(photo().convert("CMYK"), "TIFF"),
        saved(photo().convert("YCbCr"), "TIFF"),
    ],
    ids=str.split("webp jpeg-tiff palette-png gif animated-gif bmp palette-tiff lzw-palette-tiff cmyk-tiff ycc-tiff"),
)
def test_a_lossy_or_palette_picture_comes_out_nearly(data: bytes) -> None:
    assert apart(rgb(data), PHOTO) < 5


GREY = np.asarray(photo().convert("L"))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_grey_png_spans_black_to_white_at_any_depth(bits: int) -> None:
    row = b"\0" + bytes([0b00011011 if bits == 2 else 0x0F if bits == 4 else 0b01010101 if bits == 1 else 255])
    data = png(png_header(8 // bits, 1, bits, 0), png_chunk(b"IDAT", zlib.compress(row)), png_chunk(b"IEND"))
    expected = {1: [0, 255] * 4, 2: [0, 85, 170, 255], 4: [0, 255], 8: [255]}[bits]
    assert rgb(data)[0, :, 1].tolist() == expected


@pytest.mark.parametrize(
    "data",
    [
        saved(photo().convert("L"), "PNG"),
        saved(photo().convert("LA"), "PNG"),
        deep(0, GREY),
        deep(4, np.dstack([GREY, np.full_like(GREY, 255)])),
        saved(photo().convert("L"), "TIFF"),
        saved(photo().convert("LA"), "TIFF"),
        saved(Pillow.fromarray(GREY.astype(np.uint16) * 257), "TIFF"),
        saved(Pillow.fromarray(GREY.astype(np.uint16) * 257), "TIFF", compression="tiff_lzw"),
        tiff(
            tiff_tags(64, 48, t258=(3, [16]), t262=(3, [1]), t277=(3, [1]), t279=(4, [6144])),
            (GREY.astype(">u2") * 257).tobytes(),
            order=">",
            next_=0,
        ),
        saved(photo().convert("L"), "BMP"),
        saved(photo().convert("L"), "GIF"),
        saved(photo().convert("L"), "WEBP", lossless=True),
    ],
    ids=str.split("png la-png png16 la-png16 tiff la-tiff tiff16 lzw-tiff16 big-endian-tiff16 bmp gif webp"),
)
def test_a_grey_picture_comes_out_exactly_in_all_three_channels(data: bytes) -> None:
    assert apart(rgb(data), np.dstack([GREY] * 3)) == 0


def test_a_tiff_whose_zero_is_white_is_turned_round() -> None:
    for bits, pixels in ((8, GREY.astype("<u1")), (16, GREY.astype("<u2") * 257)):
        tags = tiff_tags(64, 48, t258=(3, [bits]), t262=(3, [0]), t277=(3, [1]), t279=(4, [pixels.nbytes]))
        assert apart(rgb(tiff(tags, pixels.tobytes(), next_=0))[..., 0], 255 - GREY) == 0


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_bmp_shows_its_palette(bits: int) -> None:
    row = {1: b"\x40", 4: b"\x01", 8: b"\x00\x01"}[bits].ljust(4, b"\0")
    assert rgb(bmp(2, 1, bits, row, colours=2)).tolist() == [[[0, 255, 0], [1, 254, 1]]]


def test_a_bmp_of_16_bits_spans_black_to_white() -> None:
    assert rgb(bmp(2, 1, 16, b"\xff\x7f\0\0")).tolist() == [[[255] * 3, [0] * 3]]


def test_a_run_length_bmp_is_unrolled() -> None:
    data = bmp(4, 2, 8, b"\4\2\0\0\2\1\2\0\0\1", compression=1, colours=3)
    assert rgb(data)[..., 0].tolist() == [[1, 1, 0, 0], [2, 2, 2, 2]]


def test_a_bmp_with_its_first_row_on_top_is_not_turned() -> None:
    assert rgb(bmp(1, -2, 24, b"\1\2\3\0\4\5\6\0")).tolist() == [[[3, 2, 1]], [[6, 5, 4]]]


def half_clear() -> Pillow.Image:
    """Red; clear on the left, opaque on the right."""
    image = Pillow.new("RGBA", (8, 4), (255, 0, 0, 255))
    image.paste((255, 0, 0, 0), (0, 0, 4, 4))
    return image


@pytest.mark.parametrize(
    "data",
    [
        saved(half_clear(), "PNG"),
        saved(half_clear().quantize(4), "PNG"),
        saved(half_clear(), "GIF"),
        saved(half_clear(), "WEBP", lossless=True, exact=True),
        saved(half_clear(), "TIFF"),
        png(
            png_header(8, 4),
            png_chunk(b"tRNS", b"\0\xff\0\0\0\1"),
            png_chunk(b"IDAT", zlib.compress((b"\0" + b"\xff\0\1" * 4 + b"\xff\0\0" * 4) * 4)),
            png_chunk(b"IEND"),
        ),
    ],
    ids=["png", "palette png", "gif", "webp", "tiff", "png with one clear colour"],
)
def test_what_is_clear_shows_white(data: bytes) -> None:
    image = rgb(data)
    assert image[:, :4].min() == 255
    assert image[:, 4:].tolist() == [[[255, 0, 0]] * 4] * 4


def test_half_clear_is_half_white() -> None:
    data = saved(Pillow.new("LA", (1, 1), (0, 128)), "PNG")
    assert rgb(data).tolist() == [[[127, 127, 127]]]


def test_floating_point_pixels_are_refused_with_a_reason() -> None:
    with pytest.raises(ImageUndecodable, match="8 or 16 bits"):
        rgb(saved(Pillow.new("F", (4, 4)), "TIFF"))


def test_a_bigtiff_of_the_byte_order_that_cannot_be_read_is_refused_with_a_reason() -> None:
    with pytest.raises(ImageUndecodable, match="big-endian"):
        rgb(tiff(tiff_tags(64, 48), PHOTO.tobytes(), order=">", big=True, next_=0))


# Sizes

SIZES = [(1, 1), (1, 7), (7, 1), (17, 31), (1, 4096), (4096, 1)]


@pytest.mark.parametrize("hw", SIZES)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_odd_sizes_come_out_whole(format_: str, hw: tuple[int, int]) -> None:
    data = saved(photo(*hw), format_)
    assert Picture(data, PIXELS).decode().rgb.shape == (*hw, 3)
    assert Picture(data, PIXELS).decode((30, 300)).rgb.shape == (30, 300, 3)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_a_line_of_twenty_thousand_pixels_comes_out_whole(format_: str) -> None:
    picture = Picture(saved(photo(1, 20_000), format_), PIXELS)
    assert picture.decode((1, 300)).source_hw == (1, 20_000)


@pytest.mark.parametrize("wanted", [(300, 300), (299, 403), (1, 1), (640, 10), (1500, 1999), (3000, 3000)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("hw", [(1500, 2000), (1499, 1999), (333, 2001)])
def test_a_picture_is_decoded_at_the_size_asked_for(format_: str, hw: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = Picture(saved(photo(*hw), format_), PIXELS).decode(wanted)
    assert (image.source_hw, image.rgb.shape) == (hw, (*wanted, 3))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("hw", [(1500, 2000), (1337, 911)])
def test_a_smaller_decode_looks_like_the_whole_one_made_small(hw: tuple[int, int], options: dict[str, object]) -> None:
    noise = np.random.default_rng(5).integers(-9, 9, (*hw, 3))
    busy = Pillow.fromarray(np.clip(np.asarray(photo(*hw)) + noise, 0, 255).astype(np.uint8))
    for data in (saved(busy, "JPEG", quality=90, **options), saved(busy, "PNG", compress_level=1)):
        small = Picture(data, PIXELS).decode((150, 150)).rgb
        whole = resized(Picture(data, PIXELS).decode().rgb, (150, 150))
        assert apart(small, whole) < 1.5


def test_a_jpeg_is_decoded_smaller_by_its_own_transform() -> None:
    data = saved(photo(1600, 2400), "JPEG")
    with Pillow.open(BytesIO(data)) as whole:
        whole.draft("RGB", (300, 200))
        eighth = np.asarray(whole)
    assert np.array_equal(Picture(data, PIXELS).decode((200, 300)).rgb, eighth)


def test_resized_gives_the_size_asked_for() -> None:
    assert resized(PHOTO, (7, 300)).shape == (7, 300, 3)
    assert resized(PHOTO, (48, 64)) is PHOTO


# Limits and names


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_limit_is_the_last_size_that_passes(format_: str) -> None:
    data = saved(photo(), format_)
    assert Picture(data, 48 * 64).header.upright_hw == (48, 64)
    with pytest.raises(ImageTooLarge) as caught:
        Picture(data, 48 * 64 - 1)
    assert caught.value.figures == {"limit": 48 * 64 - 1, "found": 48 * 64}


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_format_is_told_by_the_bytes(format_: str) -> None:
    assert Picture(saved(photo(), format_), PIXELS).header.format == format_


def test_what_is_no_picture_is_named_as_such() -> None:
    with pytest.raises(NotAnImage, match="JPEG, PNG, WebP, GIF, BMP or TIFF"):
        sniff(b"%PDF-1.7")


# Warnings


def test_damaged_metadata_is_passed_over_whether_warnings_are_errors_or_not() -> None:
    data = tiff(tiff_tags(64, 48, t256=(4, [64, 64])), PHOTO.tobytes(), next_=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rgb(data)
    assert not caught
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert apart(rgb(data), PHOTO) == 0


def test_the_programs_own_warnings_stay() -> None:
    rgb(saved(photo(), "PNG"))
    with pytest.warns(UserWarning, match="ours"):
        warnings.warn("ours", stacklevel=1)


def test_text_and_profile_of_a_png_do_not_matter() -> None:
    noise = [png_chunk(b"tEXt", b"transparency\0x"), png_chunk(b"iCCP", b"x"), png_chunk(b"acTL", bytes(8))]
    assert (rgb(png_with(*noise)) == rgb(png_with())).all()


def test_a_bare_png_is_not_copied() -> None:
    data = png_with()
    assert checked(data, "PNG", PIXELS) is data


def test_the_first_of_several_pictures_in_a_webp_is_taken() -> None:
    still = saved(photo(), "WEBP", lossless=True)
    assert apart(rgb(webp(webp_canvas(64, 48), still[12:])), PHOTO) == 0


def test_pixels_are_packed_bytes() -> None:
    pixels = rgb(saved(photo().convert("RGBA"), "PNG"))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
