"""Super-resolution: networks that give a larger picture for a picture, by overlapping tiles.

A bundle has one for each scale: `x2`, `x3`, `x4`, `x8`, or some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Pillow

from shared import encoding, needs
from shared.errors import ConfigurationError, DeadlineExceeded, InvalidParameter, OutOfMemory
from shared.parameters import EnlargeParameters
from shared.predictions import Enlarged, Prediction
from shared.tasks import Plan
from shared.tasks.detection import read_options
from shared.tasks.enlarger import Enlarger, Options
from shared.tasks.tiles import Mosaic

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.call import Call
    from shared.geometry import HW
    from shared.images import Decoding, Header, Image
    from shared.manifest import Bundle
    from shared.tasks.enlarger import Tiling
    from shared.tensors import UInt8

TASK = "super-resolution"
SCALES = (2, 3, 4, 8)
_USUAL_SCALE = 4
_SURE_AFTER = 2  # tiles; the first one takes longer than those that find its memory there
_NO_FACTOR = "render_factor has no effect: the whole picture is enlarged"
_NO_QUALITY = "quality has no effect: png keeps every pixel as it is"
_ON_WHITE = "jpeg has no transparency: the picture was laid on white"


class Enlarging(Plan, frozen=True, kw_only=True):
    """A Plan: the side that tiles have at most."""

    side: int


class ImageToImageTask:
    """A Task (see shared.tasks)."""

    def __init__(self, bundle: Bundle) -> None:
        if bundle.model.task != TASK:
            raise ConfigurationError(
                f"task: family {bundle.model.family!r} is for {TASK!r}, found {bundle.model.task!r}"
            )
        options = read_options(bundle, Options)
        self._enlargers = {scale: Enlarger(bundle, scale, options) for scale in _scales(bundle)}
        self._scale = _default_scale(list(self._enlargers), options)

    @property
    def defaults(self) -> EnlargeParameters:
        return EnlargeParameters(scale=self._scale)  # type: ignore[arg-type]

    def plan(self, picture: Decoding, params: EnlargeParameters, budget_bytes: int) -> Enlarging:
        enlarger, header = self._enlarger(params.scale), picture.header
        encoding.check_sides(_times(header.upright_hw, params.scale), params.output_format)
        side = enlarger.usual_side
        plan = _foreseen(enlarger, header, params, side)
        while plan.bytes_needed > budget_bytes and side > enlarger.least_side and not enlarger.is_fixed:
            side = max(side * 7 // 8, enlarger.least_side)
            plan = _foreseen(enlarger, header, params, side)
        return plan

    def predict(
        self, picture: Decoding, plan: Enlarging, params: EnlargeParameters, runs: Mapping[str, Run], call: Call
    ) -> Prediction[Enlarged]:
        enlarger = self._enlarger(params.scale)
        image = picture.image(plan.decode_hw, call, alpha=True)
        notes = _notes(params)
        if image.alpha is not None and params.output_format == "jpeg":
            image, notes = _on_white(image, image.alpha), (*notes, _ON_WHITE)
        try:
            canvas, shorter = _enlarged(image, enlarger, plan.side, runs[enlarger.name], call)
            with call.stage("encode"):
                width, height = canvas.size
                data = encoding.encoded(canvas, params.output_format, params.quality)
                canvas.close()
            twin = _twin(image, params, call) if params.twin else None
        except MemoryError as error:
            raise OutOfMemory("there is not enough memory to enlarge this picture") from error
        found = Enlarged(data, width, height, params.output_format, params.scale, twin)
        return Prediction(picture.header.upright_hw, (found,), (*notes, *shorter))

    def _enlarger(self, scale: int) -> Enlarger:
        if scale not in self._enlargers:
            raise InvalidParameter(
                f"scale: this model has {', '.join(map(str, self._enlargers))}, found {scale}", parameter="scale"
            )
        return self._enlargers[scale]


def task(bundle: Bundle) -> ImageToImageTask:
    """The factory that `shared.tasks` names."""
    return ImageToImageTask(bundle)


def _scales(bundle: Bundle) -> list[int]:
    known = {f"x{scale}": scale for scale in SCALES}
    found = list(bundle.model.networks)
    if not found or set(found) - set(known):
        raise ConfigurationError(f"networks: expected some of {', '.join(known)}, found {sorted(found)}")
    return sorted(known[name] for name in found)


def _default_scale(scales: list[int], options: Options) -> int:
    if options.scale is not None:
        if options.scale not in scales:
            raise ConfigurationError(f"postprocess.scale: expected one of {scales}, found {options.scale}")
        return options.scale
    return max((scale for scale in scales if scale <= _USUAL_SCALE), default=scales[0])


def _notes(params: EnlargeParameters) -> tuple[str, ...]:
    usual = EnlargeParameters()
    factor = (_NO_FACTOR,) if params.render_factor != usual.render_factor else ()
    idle = params.output_format == "png" and params.quality != usual.quality
    return (*factor, *((_NO_QUALITY,) if idle else ()))


def _times(hw: HW, scale: int) -> HW:
    return scale * hw[0], scale * hw[1]


# What a request takes

_PILLOW_BYTES = {"L": 1, "LA": 4, "RGB": 4, "RGBA": 4}
_SOURCE_BYTES = 8  # colours and alpha as arrays, and for a moment as Pillow has them


def _foreseen(enlarger: Enlarger, header: Header, params: EnlargeParameters, side: int) -> Enlarging:
    """The plan with tiles of at most `side`. Its need is the largest of its stages': decoding, a tile beside the whole
    canvas, the canvas being encoded, and the twin's way beside the first one's file."""
    scaled, format_ = _times(header.upright_hw, params.scale), params.output_format
    mode = _mode(header.grey, header.alpha and format_ != "jpeg")
    source, pixels = _SOURCE_BYTES * prod(header.upright_hw), prod(scaled)
    canvas = _PILLOW_BYTES[mode] * pixels
    tile = enlarger.tile_bytes(enlarger.tiling(header.upright_hw, side))
    joining = canvas + 2 * pixels if header.alpha else 0  # with the alpha, which is enlarged beside it
    encoding_ = canvas + encoding.bytes_needed(scaled, mode, format_)
    stages = [
        needs.decode_bytes(header, None, alpha=header.alpha),
        source + canvas + tile,
        source + max(joining, encoding_),
    ]
    if params.twin:
        # Pillow enlarges across first, and what is transparent with its colours multiplied by their alpha.
        resizing = canvas * 2 if header.alpha else canvas + canvas // params.scale
        stages.append(source + encoding.file_bytes(scaled, mode) + max(resizing, encoding_))
    return Enlarging(None, alpha=True, bytes_needed=max(stages), side=side)


def _mode(grey: bool, alpha: bool) -> str:
    """What the enlarged picture is in Pillow's words."""
    return ("L" if grey else "RGB") + ("A" if alpha else "")


# The work


def _enlarged(
    image: Image, enlarger: Enlarger, side: int, run: Run, call: Call
) -> tuple[Pillow.Image, tuple[str, ...]]:
    """The enlarged picture, its alpha too, and what to say of it. Where memory runs out all the same its tiles are made
    anew with half the side. Raises OutOfMemory, DeadlineExceeded and what the backend raises."""
    canvas = Pillow.new(_mode(image.grey, alpha=False), _times(image.source_hw, enlarger.scale)[::-1])
    enlarge = partial(enlarger.enlarged, run=run, call=call)
    notes: tuple[str, ...] = ()
    while True:
        try:
            _fill(Mosaic(canvas, enlarger.scale), image.rgb, enlarger.tiling(image.source_hw, side), enlarge, call)
            break
        except OutOfMemory:
            side //= 2
            if enlarger.is_fixed or side < enlarger.least_side:
                raise
        notes = (f"memory was short: the picture was enlarged in tiles of at most {side} pixels",)
    if image.alpha is not None:
        with call.stage("postprocess"):
            canvas.putalpha(Pillow.fromarray(image.alpha).resize(canvas.size, Pillow.Resampling.BICUBIC))
    return canvas, notes


def _fill(mosaic: Mosaic, rgb: UInt8, tiling: Tiling, enlarge: Callable[[UInt8], UInt8], call: Call) -> None:
    """Every tile of `rgb` [H, W, 3], enlarged. Raises DeadlineExceeded as soon as it is foreseen."""
    rows, columns = tiling
    begin_s, total = monotonic(), len(rows) * len(columns)
    for number, (row, column) in enumerate(product(rows, columns)):
        _check_time(number, total, monotonic() - begin_s, call)
        tile = enlarge(rgb[row.start : row.stop, column.start : column.stop])
        with call.stage("postprocess"):
            mosaic.lay(tile, row, column)


def _check_time(done: int, total: int, elapsed_s: float, call: Call) -> None:
    call.check()
    if done < _SURE_AFTER:
        return
    foreseen_s = elapsed_s / done * (total - done)
    if foreseen_s > call.remaining_s:
        raise DeadlineExceeded(
            f"the picture takes about {foreseen_s + elapsed_s:.0f} s to enlarge and {call.remaining_s:.0f} s of "
            f"{call.timeout_s:g} are left for the last {foreseen_s:.0f} of them; ask for a smaller scale or send a "
            "smaller picture, or have THINLENS_TIMEOUT_S raised",
            limit=call.timeout_s,
            found=round(foreseen_s + elapsed_s, 1),
        )


def _twin(image: Image, params: EnlargeParameters, call: Call) -> bytes:
    """The picture as Pillow enlarges it, bicubic, encoded as the other one is."""
    with call.stage("twin"):
        size = _times(image.source_hw, params.scale)[::-1]
        source = Pillow.fromarray(np.ascontiguousarray(image.rgb[..., 0]) if image.grey else image.rgb)
        if image.alpha is not None:
            source.putalpha(Pillow.fromarray(image.alpha))
        larger = source.resize(size, Pillow.Resampling.BICUBIC)
        return encoding.encoded(larger, params.output_format, params.quality)


def _on_white(image: Image, alpha: UInt8) -> Image:
    white = Pillow.new("RGB", image.source_hw[::-1], (255, 255, 255))
    white.paste(Pillow.fromarray(image.rgb), mask=Pillow.fromarray(alpha))
    return replace(image, rgb=np.asarray(white), alpha=None)
