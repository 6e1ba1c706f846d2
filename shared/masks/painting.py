"""A mask on a picture: a tint, and a line along its edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Pillow

from shared.masks.rle import decoded

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.predictions import Rle

    Bits = npt.NDArray[np.bool_]

_BAND_PIXELS = 1 << 20
_TINT, _OPAQUE = 115, 255


def paint(canvas: Pillow.Image, rle: Rle, rgb: tuple[int, int, int], line: int, factor: int = 1) -> None:
    """Lays `rgb` over the mask's pixels, and opaque over those at its edge, `line` pixels deep.

    A source pixel takes `factor` x `factor` pixels of the canvas. Takes the memory of the mask's tight crop, one byte a
    pixel, and of a few bands. Raises ValueError where `rle` is malformed.
    """
    placed = decoded(rle)
    height, width = placed.bits.shape
    depth = -(-line // factor)
    rows = max(1, _BAND_PIXELS // max(1, width * factor**2))
    for begin in range(0, height, rows):
        first, last = max(0, begin - depth), min(height, begin + rows + depth)
        band = _enlarged(placed.bits[first:last], factor)
        edged = np.pad(band, ((line * (first == 0), line * (last == height)), (line, line)))
        inner = _eroded(edged, line)[line * (first == 0) :, line:-line][: len(band)]
        shown = np.s_[(begin - first) * factor : (min(begin + rows, height) - first) * factor]
        strength = np.where(inner[shown], np.uint8(_TINT), band[shown] * np.uint8(_OPAQUE))
        at = (placed.left * factor, (placed.top + begin) * factor)
        canvas.paste(rgb, (*at, at[0] + strength.shape[1], at[1] + len(strength)), Pillow.fromarray(strength))


def _enlarged(bits: Bits, factor: int) -> Bits:
    return bits if factor == 1 else bits.repeat(factor, axis=0).repeat(factor, axis=1)


def _eroded(bits: Bits, depth: int) -> Bits:
    """Where all pixels up to `depth` above, below, left and right, corners included, are there."""
    whole = bits.copy()
    for side in (whole, whole.T):
        reach = 0
        while reach < depth:
            step = min(reach + 1, depth - reach)
            near = side.copy()
            near[step:] &= side[:-step]
            near[:-step] &= side[step:]
            near[:step] &= False
            near[-step:] &= False
            side[:] = near
            reach += step
    return whole
