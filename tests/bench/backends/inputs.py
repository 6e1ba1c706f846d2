"""The tensor that every side is given, and what is compared of what it gives back. Knows no framework."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.bench.pictures import photo


def pixels(side: int) -> npt.NDArray[np.uint8]:
    """The street, uint8 [1, side, side, 3], RGB."""
    return np.array(decoded(photo(1280, 720)).resize((side, side)))[None]


def decoded(picture: bytes) -> Image.Image:
    with Image.open(BytesIO(picture)) as image:
        return image.convert("RGB")


def sums(outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    """One number for each output, by which two sides that do the same are known."""
    return {name: float(array.sum(dtype=np.float64)) for name, array in sorted(outputs.items())}
