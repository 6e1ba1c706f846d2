"""A mask as a crop of its picture, and a mask measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from shared.predictions import Box, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from shared.geometry import HW


@dataclass(frozen=True, slots=True)
class Placed:
    """A mask in upright source pixels: `bits` [h, w] bool lies at (`top`, `left`) of a picture of `source_hw`, wholly
    inside it; all around is background. It may be empty (0 x 0)."""

    top: int
    left: int
    bits: npt.NDArray[np.bool_]
    source_hw: HW


class Measured(NamedTuple):
    """A mask as run lengths, its area in source pixels and the tight box around it (zeros where there is no pixel)."""

    rle: Rle
    area: int
    box: Box


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of a picture of `picture_hw` that a model was shown as if it were the whole; it begins at (`top`,
    `left`)."""

    top: int
    left: int
    picture_hw: HW
