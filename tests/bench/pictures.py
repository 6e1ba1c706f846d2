"""The pictures that are measured with, made from the sample photo the same way every time."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
_STREET = ROOT / "shared/web/static/samples/street.jpg"
_GRAIN = 6.0
_QUALITY = 88


def photo(width: int, height: int) -> bytes:
    """The street as a baseline JPEG of that size."""
    return encoded("JPEG", (width, height), quality=_QUALITY)


@cache
def encoded(format_: str, size: tuple[int, int], **options: Any) -> bytes:
    """The street at `size` (width, height) as a file. An enlarged one gets a camera's grain, without which its entropy,
    and so the part of decoding that no way can leave out, would be far below a real photograph's."""
    width, height = size
    with Image.open(_STREET) as street:
        image = street.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        enlarged = width > street.width
    if enlarged:
        grain = np.random.default_rng(0).normal(0, _GRAIN, (height, width, 1)).astype(np.float32)
        image = Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def twelve_megapixels() -> bytes:
    return photo(4000, 3000)


def tiny() -> bytes:
    return photo(64, 48)
