"""One network that enlarges: which tiles it takes, and one of them from pixels to pixels."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from shared import geometry, needs
from shared.errors import ConfigurationError, ModelOutputMismatch
from shared.images import Image
from shared.tasks import preparation
from shared.tasks.companions import companions, told_apart
from shared.tasks.tiles import Seam, Span, spans

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.backends import Run
    from shared.call import Call
    from shared.geometry import HW
    from shared.manifest import Bundle
    from shared.tensors import TensorSpec, UInt8

Tiling = tuple[tuple[Span, ...], tuple[Span, ...]]
"""The tiles' rows and columns."""

_UNKNOWN = Seam(32, 16)  # networks are seldom moved by what is farther away; what they are shall at least not show
_RAMP = 4
_LARGEST_SIDE, _LARGEST_RESULT = 384, 1024  # of tiles; larger ones take more memory and no less time
_LEAST_SIDE = 64
_FLOAT_BYTES = 4
_RESULT_BYTES = 12  # a pixel of a tile's result as uint8, what is kept of it, and the same as Pillow has it


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`postprocess` of model.json.

    overlap       how far away, in pixels of the source, a pixel still moves the result: the receptive field's radius.
                  Tiles that overlap by it on both sides give what the whole picture would; null: it is not known
    output_range  what the network gives for black and for white; null: 0 and 255 of uint8, 0 and 1 of floats
    scale         that of a request that gives none; null: 4, or the nearest below that the bundle has
    """

    overlap: Annotated[int, Meta(ge=0, le=1024)] | None = None
    output_range: tuple[float, float] | None = None
    scale: Literal[2, 3, 4, 8] | None = None


class Enlarger:
    """The network `x4`, say, of a bundle. Raises ConfigurationError where it cannot be one."""

    def __init__(self, bundle: Bundle, scale: int, options: Options) -> None:
        self.scale = scale
        self.name = f"x{scale}"
        self._bundle = bundle
        self._preprocess = bundle.model.preprocess
        network, field = bundle.model.networks[self.name], f"networks.{self.name}"
        self._input, self._others = told_apart(network.inputs, f"{field}.inputs")
        if len(network.outputs) != 1:
            found = [spec.name for spec in network.outputs]
            raise ConfigurationError(f"{field}.outputs: expected one, the enlarged picture, found {found}")
        self._output = network.outputs[0]
        preparation.check(self._preprocess, self._input)
        self._fixed_hw = preparation.declared_hw(self._preprocess, self._input)
        self._low, self._high = _range(self._output, options, field)
        self._seam = _seam(options.overlap, self._fixed_hw, field)

    @property
    def usual_side(self) -> int:
        """The side of tiles where memory is no matter."""
        return max(min(_LARGEST_SIDE, _LARGEST_RESULT // self.scale), 8 * self._seam.shared)

    @property
    def least_side(self) -> int:
        """The side that tiles have at least: smaller ones would be made mostly for their margins."""
        return min(max(_LEAST_SIDE, 2 * self._seam.shared), self.usual_side)

    @property
    def is_fixed(self) -> bool:
        """Whether the network takes tiles of one size only."""
        return self._fixed_hw is not None

    def tiling(self, source_hw: HW, side: int) -> Tiling:
        """The tiles of a picture of `source_hw`, of a side of about `side` at most, or as the network has it."""
        steps = self._fixed_hw or (self._preprocess.multiple_of,) * 2
        rows, columns = (
            spans(length, max(step, side // step * step) if self._fixed_hw is None else step, self._seam, step)
            for length, step in zip(source_hw, steps, strict=True)
        )
        return rows, columns

    def tile_bytes(self, tiling: Tiling) -> int:
        """The most that one tile takes, from the source's pixels to those laid down."""
        tile_hw = self._padded(_tile_hw(tiling))
        elements = 3 * prod(tile_hw)
        prepared = (1 + _bytes_of(self._input)) * elements
        result = _RESULT_BYTES + (3 * _FLOAT_BYTES if self._output.dtype != "uint8" else 0)
        finished = result * prod(tile_hw) * self.scale**2
        return prepared + needs.run_bytes(self._bundle, self.name, elements) + finished

    def enlarged(self, pixels: UInt8, run: Run, call: Call) -> UInt8:
        """`pixels` [h, w, 3] uint8 RGB -> [h * scale, w * scale, 3], or more to the right and below, where the network
        wants sides of its own: the last row and column are then repeated. Raises ModelOutputMismatch and what the
        backend raises."""
        hw = self._padded((pixels.shape[0], pixels.shape[1]))
        with call.stage("preprocess"):
            padding = [(0, side - length) for side, length in zip(hw, pixels.shape, strict=False)]
            whole = np.pad(pixels, [*padding, (0, 0)], mode="edge") if hw != pixels.shape[:2] else pixels
            tensor = preparation.to_tensor(Image(whole, hw), geometry.stretch(hw, hw), self._preprocess, self._input)
        with call.stage("infer"):
            outputs = run({self._input.name: tensor, **companions(self._others, hw)}, call)
        with call.stage("postprocess"):
            return self._pixels(outputs, hw)

    def _padded(self, hw: HW) -> HW:
        if self._fixed_hw is not None:
            return self._fixed_hw
        step = self._preprocess.multiple_of
        height, width = (-(-side // step) * step for side in hw)
        return height, width

    def _pixels(self, outputs: Any, tile_hw: HW) -> UInt8:
        """The one output, in the layout and colour order of the input, as uint8 [h, w, 3] RGB."""
        name, layout = self._output.name, self._preprocess.layout
        if name not in outputs:
            raise ModelOutputMismatch(f"output {name!r} is missing; found {sorted(outputs)}", output=name)
        values: npt.NDArray[Any] = outputs[name]
        height, width = (self.scale * side for side in tile_hw)
        sides = {"N": 1, "C": 3, "H": height, "W": width}
        expected = [sides[axis] for axis in layout]
        if list(values.shape) != expected:
            raise ModelOutputMismatch(
                f"output {name!r}: {self.name} expects shape {expected}, found {list(values.shape)}",
                output=name,
                expected=expected,
                found=list(values.shape),
            )
        values = values[0] if layout.startswith("N") else values
        values = values.transpose(1, 2, 0) if layout.endswith("CHW") else values
        return self._levels(values[..., ::-1] if self._preprocess.colour == "BGR" else values)

    def _levels(self, values: npt.NDArray[Any]) -> UInt8:
        """0..255, rounded; what the network gives beyond its range is clipped."""
        if values.dtype == np.uint8:
            return values
        gain = 255 / (self._high - self._low)
        levels: npt.NDArray[np.float32] = np.multiply(values, gain, dtype=np.float32)
        if not np.isfinite(levels.sum()):
            name = self._output.name
            raise ModelOutputMismatch(f"output {name!r} has values that are no numbers", output=name)
        if self._low:
            levels -= self._low * gain
        np.rint(levels, out=levels)
        return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def _tile_hw(tiling: Tiling) -> HW:
    height, width = (axis[0].stop - axis[0].start for axis in tiling)
    return height, width


def _bytes_of(spec: TensorSpec) -> int:
    return np.dtype(spec.dtype).itemsize


def _range(spec: TensorSpec, options: Options, field: str) -> tuple[float, float]:
    if spec.dtype not in ("uint8", "float16", "float32"):
        raise ConfigurationError(
            f"{field}: output {spec.name!r}: expected uint8, float16 or float32, found {spec.dtype}"
        )
    usual = (0.0, 255.0) if spec.dtype == "uint8" else (0.0, 1.0)
    low, high = options.output_range or usual
    if not low < high or (spec.dtype == "uint8" and (low, high) != usual):
        expected = "0 and 255, as it is uint8" if spec.dtype == "uint8" else "black's value below white's"
        raise ConfigurationError(f"postprocess.output_range: expected {expected}, found {[low, high]}")
    return low, high


def _seam(overlap: int | None, fixed_hw: HW | None, field: str) -> Seam:
    """What tiles share; a network of fixed size shall not be run for its margins only."""
    side = min(fixed_hw) if fixed_hw else None
    if overlap is None:
        part = _UNKNOWN.margin if side is None else side // 8
        return Seam(min(_UNKNOWN.margin, part), min(_UNKNOWN.ramp, part))
    seam = Seam(overlap, _RAMP)
    if side is not None and seam.shared >= side:
        most = max(0, (side - 1 - _RAMP) // 2)
        raise ConfigurationError(
            f"postprocess.overlap: expected at most {most}, as {field} takes tiles of {side}, found {overlap}"
        )
    return seam
