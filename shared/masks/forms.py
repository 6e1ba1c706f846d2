"""A mask in the form in which a reply carries it."""

from __future__ import annotations

from typing import Literal

from shared.masks.png import png
from shared.masks.polygons import polygons
from shared.masks.rle import decoded
from shared.predictions import Mask, Rle

MaskFormat = Literal["rle", "polygon", "png", "none"]


def presented(rle: Rle, mask_format: MaskFormat, polygon_tolerance: float = 0.0) -> Mask:
    """`rle` itself, its polygons, the bytes of a PNG of the whole picture, or None. Raises ValueError where `rle` is
    malformed."""
    if mask_format == "rle":
        return rle
    if mask_format == "none":
        return None
    placed = decoded(rle)
    return png(placed) if mask_format == "png" else polygons(placed, polygon_tolerance)
