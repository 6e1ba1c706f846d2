"""One picture in many encodings: the same things at the same places."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import requests
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "shared/web/static/samples"
Found = list[tuple[str, list[float]]]


def _encoded(image: Image.Image, format_: str = "JPEG", **options: object) -> bytes:
    out = BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def _turned_by_exif(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encoded(image.transpose(Image.Transpose.ROTATE_90), quality=95, exif=exif)


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


VERSIONS: dict[str, Callable[[Image.Image], bytes]] = {
    "turned by EXIF": _turned_by_exif,
    "huge": lambda image: _encoded(_scaled(image, 5), quality=90),
    "huge PNG": lambda image: _encoded(_scaled(image, 3), "PNG", compress_level=1),
    "tiny": lambda image: _encoded(_scaled(image, 320 / image.width), quality=95),
    "grey": lambda image: _encoded(image.convert("L"), quality=95),
    "palette": lambda image: _encoded(image.quantize(256), "PNG"),
    "GIF": lambda image: _encoded(image.quantize(256), "GIF"),
    "CMYK": lambda image: _encoded(image.convert("CMYK"), quality=95),
    "WebP": lambda image: _encoded(image, "WEBP", quality=90),
    "TIFF": lambda image: _encoded(image, "TIFF", compression="tiff_lzw"),
    "BMP": lambda image: _encoded(image, "BMP"),
    "with alpha": lambda image: _encoded(image.convert("RGBA"), "PNG", compress_level=1),
}


def _found(server: str, data: bytes, score_threshold: float) -> tuple[tuple[int, int], Found]:
    """The picture's size and what is in it, boxes as fractions of the sides."""
    reply = requests.post(f"{server}/predict", data, params={"score_threshold": score_threshold}, timeout=30).json()
    width, height = reply["image"]["width"], reply["image"]["height"]
    sides = (width, height, width, height)
    found = [
        (one["label"], [value / side for value, side in zip(one["box"], sides, strict=True)])
        for one in reply["predictions"]
    ]
    return (width, height), found


@pytest.mark.parametrize("version", VERSIONS)
def test_boxes_stay_where_they_are(version: str, live_server: str) -> None:
    image = Image.open(SAMPLES / "street.jpg").convert("RGB")
    _, expected = _found(live_server, _encoded(image, "PNG", compress_level=1), 0.7)
    data = VERSIONS[version](image)
    (width, height), found = _found(live_server, data, 0.3)
    assert abs(width / height - image.width / image.height) < 0.01
    assert len(expected) >= 4
    for label, box in expected:
        moved = [max(abs(a - b) for a, b in zip(box, other, strict=True)) for name, other in found if name == label]
        assert min(moved, default=1.0) < 0.02, f"{label} at {box}"
