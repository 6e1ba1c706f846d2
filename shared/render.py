"""Predictions drawn on the picture."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from shared import encoding
from shared.errors import OutOfMemory
from shared.images import Picture
from shared.masks.painting import paint
from shared.masks.rle import heart
from shared.predictions import Enlarged, Instance, Rle, Segment

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.predictions import Box, Detection, Prediction

RGB = tuple[int, int, int]
Place = tuple[int, int, int, int]
"""x1, y1, x2, y2 in canvas pixels, max exclusive."""

_LEAST_LONG_SIDE, _ENLARGED_LONG_SIDE = 320, 480
_LEAST_SHORT_SIDE = 40
_LARGEST_ENLARGED_SIDE = 4000
_LEAST_TEXT_PX = 12
_LEAST_WIDEST_TAG = 15  # text heights; a tag may be as wide as that, or half the picture
_TEXT_PER_LONG_SIDE = 1 / 75  # 13 pixels where a picture is shown 1000 pixels wide
_LINE_PER_LONG_SIDE = 1 / 400
_BLACK, _WHITE, _HALO = (0, 0, 0), (255, 255, 255), (20, 20, 20)
_LEAST_LUMINANCE = 0.15
_GOLDEN_RATIO = 0.618033988749895
# What Pillow's own typeface can show.
_UNSHOWABLE = re.compile(r"[^ -~]+")


def drawn(
    data: bytes,
    prediction: Prediction[Any],
    format_: encoding.Format,
    max_pixels: int,
    check: Callable[[], None] = lambda: None,
) -> bytes:
    """The upright picture with each prediction's mask, box, label and score on it, encoded as `format_`, RGB; of an
    enlarged picture, that picture as it is.

    Lines and text grow with the picture, so that they can be read when a large one is shown small. A picture with a
    long side under 320 pixels is first enlarged by the whole factor that brings it to 480, and a thin one until its
    short side is 40 or its long one 4000, because no text could be read on it; all others keep their size. Boxes are
    those of `prediction`, in upright source pixels, and so are masks, which must be run lengths. `check` is asked
    before each mask and each tag, and may raise.

    Raises what `Picture` raises, OutOfMemory, and NotAcceptable where the format cannot hold a side of that length.
    """
    if prediction.predictions and isinstance(prediction.predictions[0], Enlarged):
        return prediction.predictions[0].image
    picture = Picture(data, max_pixels)
    factor = _enlargement(*picture.header.upright_hw)
    encoding.check_sides(picture.header.upright_hw, format_)
    try:
        canvas = Pillow.fromarray(picture.decode().rgb)
        if factor > 1:
            canvas = canvas.resize((canvas.width * factor, canvas.height * factor), Pillow.Resampling.BICUBIC)
        _draw(canvas, prediction.predictions, factor, check)
    except MemoryError as error:
        raise OutOfMemory("there is not enough memory to draw on this picture") from error
    return encoding.encoded(canvas, format_)


def _enlargement(height: int, width: int) -> int:
    long, short = max(height, width), min(height, width)
    for_long = -(-_ENLARGED_LONG_SIDE // long) if long < _LEAST_LONG_SIDE else 1
    for_short = min(-(-_LEAST_SHORT_SIDE // short), _LARGEST_ENLARGED_SIDE // long)
    return max(1, for_long, for_short)


@dataclass(frozen=True, slots=True)
class _Pens:
    """What a canvas of one size is drawn with, in its pixels."""

    line: int
    halo: int
    pad: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont

    @property
    def text_height(self) -> int:
        return round(sum(self.font.getmetrics())) if isinstance(self.font, ImageFont.FreeTypeFont) else 11


def _pens(canvas: Pillow.Image) -> _Pens:
    long, short = max(canvas.size), min(canvas.size)
    text = max(_LEAST_TEXT_PX, min(long * _TEXT_PER_LONG_SIDE, short / 6))
    line = max(2, round(min(long * _LINE_PER_LONG_SIDE, short / 40)))
    return _Pens(line, max(1, line // 3), max(2, round(text / 5)), ImageFont.load_default(text))


@dataclass(frozen=True, slots=True)
class _Shown:
    """One prediction as it is drawn: without a box where `outlined` is False, and with a tag that may be wider than its
    box where `tagged` is True."""

    box: Box
    label: str
    score: float
    colour: RGB
    mask: Rle | None = None
    area: int = 0
    outlined: bool = True
    tagged: bool = True


def _shown(number: int, found: Detection | Instance | Segment) -> _Shown:
    """What is found has the colour of its class; what has a mask, one of its own."""
    mask = found.mask if isinstance(found, Instance | Segment) and isinstance(found.mask, Rle) else None
    if isinstance(found, Segment):
        is_automatic = found.point is not None
        own = colour(number)
        return _Shown(found.box, "", found.score, own, mask, found.area, outlined=False, tagged=not is_automatic)
    label = showable(found.label) or f"class {found.class_id}"
    if isinstance(found, Instance):
        return _Shown(found.box, label, found.score, colour(number), mask, found.area)
    return _Shown(found.box, label, found.score, colour(found.class_id))


def _draw(
    canvas: Pillow.Image,
    found: tuple[Detection | Instance | Segment, ...],
    factor: int,
    check: Callable[[], None],
) -> None:
    """Masks, the larger under the smaller; all boxes on them; all tags on those. Where boxes or tags cross, the higher
    score is on top and has the better place."""
    pens, shown = _pens(canvas), [_shown(number, one) for number, one in enumerate(found)]
    for one in sorted(shown, key=lambda one: one.area, reverse=True):
        check()
        if one.mask is not None:
            paint(canvas, one.mask, one.colour, pens.line, factor)
    for one in reversed(shown):
        if one.outlined:
            _outline(canvas, _on_canvas(one.box, canvas.size, factor), one.colour, pens)
    _label(canvas, shown, factor, pens, check)


def _label(canvas: Pillow.Image, shown: list[_Shown], factor: int, pens: _Pens, check: Callable[[], None]) -> None:
    """The tags: each at its box, or in the midst of a mask that has no box drawn around it."""
    widest = min(canvas.width, max(canvas.width // 2, _LEAST_WIDEST_TAG * pens.text_height)) - 2 * pens.pad
    gap = pens.line // 2 + pens.halo
    tags, boxes, sizes = [], [], []
    for one in shown:
        check()
        box, text = _on_canvas(one.box, canvas.size, factor), _caption(one.label, one.score, widest, pens)
        wide, high = round(pens.font.getlength(text)) + 2 * pens.pad, pens.text_height + pens.pad
        if not one.tagged and (wide > box[2] - box[0] or high > box[3] - box[1]):
            continue
        if not one.outlined and one.mask is not None:
            x, y = ((place * factor + factor // 2) for place in heart(one.mask))
            left, below = x - wide // 2 + gap, y + high // 2 + gap  # so that above it and along its left is upon (x, y)
            box = (left, below, left + wide, below)
        tags.append((text, one.colour))
        boxes.append(box)
        sizes.append((wide, high))
    for (text, fill), place in reversed(list(zip(tags, placed(boxes, sizes, canvas.size, gap), strict=True))):
        _tag(ImageDraw.Draw(canvas), text, place, fill, pens)


def colour(class_id: int) -> RGB:
    """The same bright colour for a class, or a number, on every picture; neighbours' hues lie far apart."""
    saturation = (0.85, 0.55, 0.7)[class_id % 3]
    while True:
        red, green, blue = (round(part * 255) for part in hsv_to_rgb(class_id * _GOLDEN_RATIO % 1, saturation, 1))
        if luminance((red, green, blue)) >= _LEAST_LUMINANCE:
            return red, green, blue
        saturation -= 0.05  # blues and violets are too dark for a dark picture


def ink(background: RGB) -> RGB:
    """Black or white, whichever stands out more from `background` (WCAG 2.2, contrast ratio)."""
    return _BLACK if (luminance(background) + 0.05) ** 2 > 1.05 * 0.05 else _WHITE


def luminance(rgb: RGB) -> float:
    """0 black .. 1 white (WCAG 2.2, relative luminance)."""
    shares = (part / 255 for part in rgb)
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _on_canvas(box: tuple[float, float, float, float], size: tuple[int, int], factor: int) -> Place:
    """A box in source pixels as whole canvas pixels inside the picture, at least one of them."""
    width, height = size
    x1, y1 = (min(max(int(low * factor), 0), side - 1) for low, side in zip(box[:2], size, strict=True))
    x2, y2 = (min(round(high * factor), side) for high, side in zip(box[2:], size, strict=True))
    return x1, y1, min(max(x2, x1 + 1), width), min(max(y2, y1 + 1), height)


def _outline(canvas: Pillow.Image, box: Place, line_colour: RGB, pens: _Pens) -> None:
    """A line along the box's edge with a dark one on both sides of it, moved inwards where the picture ends."""
    draw, grow = ImageDraw.Draw(canvas), pens.line // 2 + pens.halo
    x1, y1 = (max(low - grow, 0) for low in box[:2])
    x2, y2 = (min(high + grow, side) - 1 for high, side in zip(box[2:], canvas.size, strict=True))
    draw.rectangle((x1, y1, x2, y2), outline=_HALO, width=pens.line + 2 * pens.halo)
    if min(x2 - x1, y2 - y1) > 2 * pens.halo:
        inner = (x1 + pens.halo, y1 + pens.halo, x2 - pens.halo, y2 - pens.halo)
        draw.rectangle(inner, outline=line_colour, width=pens.line)


def _caption(label: str, confidence: float, width: int, pens: _Pens) -> str:
    """Label, if any, and score; the label is shortened where both are wider than `width`."""
    score = f"  {confidence:.2f}" if label else f"{confidence:.2f}"
    if pens.font.getlength(label + score) <= width:
        return label + score
    while label and pens.font.getlength(label + "..." + score) > width:
        label = label[: len(label) * 9 // 10]
    return (label.rstrip() + "..." + score) if label else score.lstrip()


def showable(label: str) -> str:
    """`label` in the letters that the typeface has: accents go, anything else becomes '?'; '' where nothing stays."""
    folded = "".join(c for c in unicodedata.normalize("NFKD", label[:200]) if not unicodedata.combining(c))
    text = " ".join(_UNSHOWABLE.sub("?", " ".join(folded.split())).split())
    return text if any(c.isalnum() for c in text) else ""


def placed(boxes: list[Place], sizes: list[tuple[int, int]], canvas: tuple[int, int], gap: int) -> list[Place]:
    """Where each box's tag of `sizes` (width, height) goes on a `canvas` (width, height).

    A tag tries the places above its box, inside its top, below it and inside its bottom, from its left and from its
    right, all moved into the picture, and takes the first one that touches no earlier tag, or else the one that
    covers the least of them.
    """
    taken: npt.NDArray[np.int64] = np.empty((0, 4), np.int64)
    for box, size in zip(boxes, sizes, strict=True):
        places = _candidates(box, size, canvas, gap)
        low = np.maximum(places[:, None, :2], taken[None, :, :2])
        high = np.minimum(places[:, None, 2:], taken[None, :, 2:])
        covered = np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
        taken = np.vstack([taken, places[covered.argmin()]])
    return [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in taken]


def _candidates(box: Place, size: tuple[int, int], canvas: tuple[int, int], gap: int) -> npt.NDArray[np.int64]:
    """Places [8, 4] by falling preference; those that would leave the picture are moved inside."""
    x1, y1, x2, y2 = box
    width, height = size
    corners = [
        (left, top)
        for top in (y1 - gap - height, y1 + gap, y2 + gap, y2 - gap - height)
        for left in (x1 - gap, x2 + gap - width)
    ]
    fitting = [(left, top) for left, top in corners if 0 <= top <= canvas[1] - height] or corners
    lows = np.clip(np.array(fitting, np.int64), 0, np.maximum(np.array(canvas) - size, 0))
    return np.hstack([lows, lows + size])


def _tag(draw: ImageDraw.ImageDraw, text: str, place: Place, fill: RGB, pens: _Pens) -> None:
    x1, y1, x2, y2 = place
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=fill, outline=_HALO, width=max(1, pens.halo // 2))
    draw.text((x1 + pens.pad, y1 + pens.pad // 2), text, fill=ink(fill), font=pens.font)
