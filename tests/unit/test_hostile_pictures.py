"""Whatever the bytes, a picture or a client's error comes out, soon and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import ImageTooLarge, ImageUndecodable, NotAnImage, TooLarge, Unsupported
from shared.images import Picture
from tests.hostile_pictures import (
    FOREIGN,
    HOSTILE,
    MAX_PIXELS,
    TOO_LARGE,
    bmp,
    jpeg_scans,
    photo,
    png,
    png_chunk,
    png_header,
    saved,
    tiff,
    tiff_tags,
    zeros,
)

ROOT = Path(__file__).parents[2]
TINY = photo(24, 32)
GOOD = {
    "jpeg": saved(TINY, "JPEG"),
    "progressive jpeg": saved(TINY, "JPEG", progressive=True),
    "cmyk jpeg": saved(TINY.convert("CMYK"), "JPEG"),
    "several in one jpeg": saved(TINY, "MPO", save_all=True, append_images=[TINY]),
    "png": saved(TINY, "PNG"),
    "palette png": saved(TINY.quantize(16), "PNG"),
    "animated png": saved(TINY, "PNG", save_all=True, append_images=[TINY.rotate(90)]),
    "webp": saved(TINY, "WEBP"),
    "lossless webp": saved(TINY, "WEBP", lossless=True),
    "animated webp": saved(TINY.convert("RGBA"), "WEBP", save_all=True, append_images=[TINY.rotate(90)]),
    "gif": saved(TINY, "GIF"),
    "animated gif": saved(TINY, "GIF", save_all=True, append_images=[TINY.rotate(90)]),
    "bmp": saved(TINY, "BMP"),
    "palette bmp": saved(TINY.quantize(16), "BMP"),
    "run-length bmp": bmp(32, 24, 8, b"\x20\1\0\0" * 24 + b"\0\1", compression=1, colours=3),
    "tiff": saved(TINY, "TIFF"),
    "deflated tiff": saved(TINY, "TIFF", compression="tiff_adobe_deflate"),
    "lzw tiff": saved(TINY, "TIFF", compression="tiff_lzw"),
    "jpeg tiff": saved(TINY, "TIFF", compression="jpeg"),
    "bigtiff": saved(TINY, "TIFF", big_tiff=True),
    "big-endian tiff": tiff(tiff_tags(32, 24), TINY.tobytes(), order=">", next_=0),
}
MUTATIONS = 200


def decoded(data: bytes, max_pixels: int = 100_000) -> str:
    """What came out: `picture`, or the code of a failure that is the client's; anything else is raised."""
    try:
        Picture(data, max_pixels).decode((8, 8))
    except (TooLarge, Unsupported, ImageUndecodable) as failure:
        return failure.code
    return "picture"


@pytest.fixture(scope="module")
def verdicts() -> dict[str, dict[str, object]]:
    """All of the hostile pictures, one after the other, in a process of their own."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.hostile_pictures"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Warning" not in run.stderr
    return {verdict["name"]: verdict for verdict in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_answered_soon_and_in_little_memory(
    name: str, verdicts: dict[str, dict[str, Any]]
) -> None:
    verdict = verdicts[name]
    assert verdict["status"] < 500, verdict["outcome"]
    assert verdict["seconds"] < 5
    assert verdict["rise_mb"] < 80


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_header_that_claims_too_much_is_refused_before_anything_is_made(
    name: str, verdicts: dict[str, dict[str, Any]]
) -> None:
    verdict = verdicts[name]
    assert verdict["outcome"] == ImageTooLarge.code
    assert verdict["seconds"] < 0.5
    assert verdict["rise_mb"] < 5


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_picture_is_an_unsupported_type(name: str) -> None:
    with pytest.raises(NotAnImage):
        Picture(FOREIGN[name](), MAX_PIXELS)


@pytest.mark.parametrize("name", [n for n in GOOD if "animated" not in n and "several" not in n])
def test_a_picture_cut_off_anywhere_is_undecodable(name: str) -> None:
    data = GOOD[name]
    for tenth in range(1, 10):
        with pytest.raises(ImageUndecodable):
            Picture(data[: len(data) * tenth // 10], MAX_PIXELS).decode()


@pytest.mark.parametrize("name", GOOD)
def test_a_picture_cut_off_at_any_byte_of_its_head_is_a_clients_error(name: str) -> None:
    for end in range(min(len(GOOD[name]), 200)):
        decoded(GOOD[name][:end])


@pytest.mark.parametrize("name", GOOD)
def test_a_picture_with_bytes_behind_it_is_decoded(name: str) -> None:
    assert decoded(GOOD[name] + b"PK\3\4 and then an archive" * 20) == "picture"


@pytest.mark.parametrize("name", GOOD)
def test_random_damage_gives_a_picture_or_a_clients_error(name: str) -> None:
    chance = np.random.default_rng([7, *name.encode()])
    for turn in range(MUTATIONS):
        data = np.frombuffer(GOOD[name], np.uint8).copy()
        reach = len(data) if turn % 2 else min(len(data), 400)  # half of the damage to the head
        places = chance.integers(0, reach, chance.integers(1, 8))
        data[places] = chance.choice(np.array([0, 1, 0x7F, 0x80, 0xFF, chance.integers(256)]), len(places))
        cut = slice(None) if turn % 5 else slice(0, int(chance.integers(reach)))
        decoded(data[cut].tobytes())


def test_some_hundred_swaps_of_parts_give_a_picture_or_a_clients_error() -> None:
    chance = np.random.default_rng(11)
    files = list(GOOD.values())
    for _ in range(500):
        one, other = (files[place] for place in chance.integers(0, len(files), 2))
        at = int(chance.integers(0, len(one)))
        decoded(one[:at] + other[int(chance.integers(0, len(other))) :])


def test_a_scan_bomb_is_named() -> None:
    with pytest.raises(ImageUndecodable, match="scans"):
        Picture(jpeg_scans(60, 64, 64), MAX_PIXELS)


def test_a_run_length_bmp_of_many_megabytes_is_named() -> None:
    with pytest.raises(ImageUndecodable, match="run-length"):
        Picture(bmp(1900, 1900, 8, b"\1\1" * 3_000_000, compression=1, colours=3), MAX_PIXELS)


def test_a_picture_that_does_not_fit_in_memory_is_too_large() -> None:
    script = """
import resource, sys
from pathlib import Path
from shared.errors import OutOfMemory
from shared.images import Picture
data = sys.stdin.buffer.read()
Picture(data, 100_000_000)
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 100_000_000,) * 2)
try:
    Picture(data, 100_000_000).decode()
except OutOfMemory as failure:
    print(failure.code)
"""
    data = png(png_header(8000, 8000, 8, 0), png_chunk(b"IDAT", zeros(65)), png_chunk(b"IEND"))
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, input=data, capture_output=True, check=True)
    assert run.stdout == b"out_of_memory\n"
