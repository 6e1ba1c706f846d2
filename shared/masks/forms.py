"""A mask in the form in which a reply carries it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from shared.errors import OutOfMemory
from shared.masks.png import png
from shared.masks.polygons import polygons
from shared.masks.rle import decoded
from shared.predictions import Mask, Rle

if TYPE_CHECKING:
    from shared.geometry import HW
    from shared.parameters import MaskFormat

# Measured on ragged masks of the whole picture, with a little to spare.
_EDGE_BYTES, _PLACED_BYTES_A_PIXEL, _BANDED_BYTES_A_PIXEL = 16_000_000, 4, 1.5
_SIDE_BYTES_A_PIXEL = 128  # what an enlargement holds of each row and column: 100 were measured at 1 x 4,000,000
_FORM_BYTES_A_PIXEL = {"rle": 0, "none": 0, "png": 2, "polygon": 8}
MOST_CORNERS = 1_000_000
"""Of all polygons of a reply."""
_CORNER_BYTES = 130  # as Python holds one


def presented(rle: Rle, mask_format: MaskFormat, polygon_tolerance: float = 0.0) -> Mask:
    """`rle` itself, its polygons, the bytes of a PNG of the whole picture, or None. Raises ValueError where `rle` is
    malformed."""
    if mask_format == "rle":
        return rle
    if mask_format == "none":
        return None
    placed = decoded(rle)
    return png(placed) if mask_format == "png" else polygons(placed, polygon_tolerance)


class Presenter:
    """Brings the masks of one reply, one after another, into the form that was asked for. Raises OutOfMemory where
    their polygons have more than MOST_CORNERS in all."""

    def __init__(self, mask_format: MaskFormat, polygon_tolerance: float) -> None:
        self._mask_format = mask_format
        self._tolerance = polygon_tolerance
        self._corners = 0

    def __call__(self, rle: Rle) -> Mask:
        mask = presented(rle, self._mask_format, self._tolerance)
        if isinstance(mask, tuple):
            self._corners += sum(len(ring) for polygon in mask for ring in polygon)
        if self._corners > MOST_CORNERS:
            raise OutOfMemory(
                f"the polygons have more than {MOST_CORNERS} corners; ask for a larger polygon_tolerance, for run "
                "lengths or for fewer masks",
                limit=MOST_CORNERS,
                found=self._corners,
            )
        return mask


def idle(mask_format: MaskFormat, polygon_tolerance: float) -> tuple[str, ...]:
    """What to say of a tolerance that nothing is drawn with."""
    is_idle = polygon_tolerance > 0 and mask_format != "polygon"
    return ("polygon_tolerance: no effect on masks that are no polygons",) if is_idle else ()


def bytes_needed(source_hw: HW, mask_format: MaskFormat, *, in_bands: bool) -> int:
    """The most that one mask takes while it is made, whole or in bands, and brought into the form that was asked for,
    beside the polygons of all."""
    pixels = prod(source_hw)
    made = _EDGE_BYTES + _SIDE_BYTES_A_PIXEL * sum(source_hw)
    made += int((_BANDED_BYTES_A_PIXEL if in_bands else _PLACED_BYTES_A_PIXEL) * pixels)
    kept = _CORNER_BYTES * MOST_CORNERS if mask_format == "polygon" else 0
    return max(made, _FORM_BYTES_A_PIXEL[mask_format] * pixels) + kept
