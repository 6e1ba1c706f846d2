"""A picture in overlapping tiles of equal shape, and the larger picture made of what a network gives for them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Pillow

if TYPE_CHECKING:
    from shared.tensors import UInt8


@dataclass(frozen=True, slots=True)
class Seam:
    """What two neighbours share, in pixels of the source: `margin` along the edge of each is thrown away, because it
    was made without the pixels beyond that edge, and between the two margins one fades into the other over `ramp`."""

    margin: int
    ramp: int

    @property
    def shared(self) -> int:
        return 2 * self.margin + self.ramp


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis, in pixels of the source: it is made from [start, stop), of which [begin, end) is kept;
    the first `ramp` of these are kept of the tile before it as well, and fade."""

    start: int
    stop: int
    begin: int
    end: int
    ramp: int


def spans(length: int, longest: int, seam: Seam, multiple_of: int = 1) -> tuple[Span, ...]:
    """The fewest tiles of one side, at most `longest`, that cover `length`; one where it fits, else that many of the
    least side that will do. `longest` is a multiple of `multiple_of` and more than what neighbours share."""
    if length <= longest:
        return (Span(0, length, 0, length, 0),)
    number = -(-(length - seam.shared) // (longest - seam.shared))
    least = -(-(length + (number - 1) * seam.shared) // number)
    side = -(-least // multiple_of) * multiple_of
    starts = [place * (length - side) // (number - 1) for place in range(number)]
    # Where neighbours share more than they need, the ramp lies in the middle, farthest from both edges.
    ramps = [(after + before + side - seam.ramp) // 2 for before, after in pairwise(starts)]
    begins, ends = [0, *ramps], [*(at + seam.ramp for at in ramps), length]
    return tuple(
        Span(start, start + side, begin, end, seam.ramp if start else 0)
        for start, begin, end in zip(starts, begins, ends, strict=True)
    )


class Mosaic:
    """A picture `scale` times as large as its source, filled tile by tile, row by row, each from left to right.

    Fading across columns is done first, in a band as high as the rows' ramp, and that band then fades into the rows
    above: so every pixel is the mean of the up to four tiles it is in, weighted linearly along both axes, and where
    they agree it is what they agree on.
    """

    def __init__(self, canvas: Pillow.Image, scale: int) -> None:
        self._canvas = canvas
        self._scale = scale
        self._band: Pillow.Image | None = None

    def lay(self, tile: UInt8, row: Span, column: Span) -> None:
        """`tile` [height, width, 3] uint8 RGB, what was made of the source's rows and columns from `row.start` and
        `column.start` on; it may reach farther than they do. On a grey canvas its luminance is laid."""
        scale = self._scale
        top, left = (row.begin - row.start) * scale, (column.begin - column.start) * scale
        height, width = (row.end - row.begin) * scale, (column.end - column.begin) * scale
        kept = self._image(tile[top : top + height, left : left + width])
        over = row.ramp * scale
        x, y, fade = column.begin * scale, row.begin * scale, column.ramp * scale
        if over:
            band = self._opened(over)
            _faded(band, kept.crop((0, 0, width, over)), x, 0, fade)
            kept = kept.crop((0, over, width, height))
            if x + width == self._canvas.width:
                self._canvas.paste(band, (0, y), _ramp(over).resize(band.size, Pillow.Resampling.NEAREST))
                self._band = None
        _faded(self._canvas, kept, x, y + over, fade)

    def _opened(self, height: int) -> Pillow.Image:
        if self._band is None:
            self._band = Pillow.new(self._canvas.mode, (self._canvas.width, height))
        return self._band

    def _image(self, pixels: UInt8) -> Pillow.Image:
        image = Pillow.fromarray(np.ascontiguousarray(pixels))
        return image if self._canvas.mode == "RGB" else image.convert(self._canvas.mode)


def _faded(onto: Pillow.Image, part: Pillow.Image, x: int, y: int, fade: int) -> None:
    """`part` on `onto` at (x, y), over its first `fade` columns fading in."""
    if fade:
        weights = _ramp(fade).transpose(Pillow.Transpose.TRANSPOSE)
        onto.paste(
            part.crop((0, 0, fade, part.height)), (x, y), weights.resize((fade, part.height), Pillow.Resampling.NEAREST)
        )
        part = part.crop((fade, 0, part.width, part.height))
    onto.paste(part, (x + fade, y))


def _ramp(length: int) -> Pillow.Image:
    """A column of weights that rises evenly between 0 and 255 and reaches neither."""
    weights = np.rint(255 * np.arange(1, length + 1) / (length + 1)).astype(np.uint8)
    return Pillow.fromarray(weights[:, None])
