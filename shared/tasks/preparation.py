"""Upright RGB pixels -> the input tensor that `preprocess` in model.json describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shared import geometry
from shared.errors import ConfigurationError
from shared.geometry import HW, Resize
from shared.images import Image, resized
from shared.manifest import Preprocess

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.tensors import TensorSpec, UInt8

RENDER_BASE_PX = 16
_AXES = {"NCHW": (2, 3), "NHWC": (1, 2), "CHW": (1, 2), "HWC": (0, 1)}


def declared_hw(preprocess: Preprocess, spec: TensorSpec) -> HW | None:
    """The tensor's (height, width): as declared in `preprocess.size`, else by the shape; None where it is free.
    Raises ConfigurationError where the two disagree or the layout cannot be this shape's."""
    if len(spec.shape) != len(preprocess.layout):
        raise ConfigurationError(
            f"preprocess.layout: {preprocess.layout} has {len(preprocess.layout)} axes, "
            f"but input {spec.name!r} has shape {list(spec.shape)}"
        )
    row, column = _AXES[preprocess.layout]
    shape_hw = (spec.shape[row], spec.shape[column])
    if spec.shape[preprocess.layout.index("C")] not in (3, None):
        raise ConfigurationError(
            f"preprocess.layout: {preprocess.layout} expects 3 channels, "
            f"but input {spec.name!r} has shape {list(spec.shape)}"
        )
    size = preprocess.size
    if size is not None and any(fixed not in (None, side) for fixed, side in zip(shape_hw, size, strict=True)):
        raise ConfigurationError(
            f"preprocess.size: expected {list(shape_hw)} as input {spec.name!r} declares, found {list(size)}"
        )
    if size is not None:
        return size
    height, width = shape_hw
    return None if height is None or width is None else (height, width)


def check(preprocess: Preprocess, spec: TensorSpec) -> None:
    """What can be known to be wrong before a picture comes. Raises ConfigurationError."""
    fixed = declared_hw(preprocess, spec) is not None
    if fixed and preprocess.resize in ("long-side", "short-side"):
        raise ConfigurationError(
            f"preprocess.resize: {preprocess.resize!r} needs a network with free height and width; "
            f"input {spec.name!r} has shape {list(spec.shape)}: use letterbox"
        )
    if not fixed and preprocess.resize == "letterbox":
        raise ConfigurationError("preprocess.size: letterbox needs [height, width]: the network's own is free")
    if spec.dtype == "uint8" and preprocess.normalises:
        raise ConfigurationError(
            f"preprocess: input {spec.name!r} is uint8 and takes pixels as they are; leave scale, mean and std out"
        )
    if preprocess.layout.startswith("N") and spec.shape[0] not in (1, None):
        raise ConfigurationError(f"input {spec.name!r}: expected a batch of 1, found shape {list(spec.shape)}")
    if spec.dtype not in ("uint8", "float16", "float32"):
        raise ConfigurationError(f"input {spec.name!r}: expected uint8, float16 or float32, found {spec.dtype}")


def place(source_hw: HW, preprocess: Preprocess, spec: TensorSpec, render_factor: int | None = None) -> Resize:
    """Where a picture of `source_hw` goes in the tensor: as `preprocess` says, or where its size is free and
    `render_factor` is given, on a square of 16 times that (DeOldify, deoldify/filters.py: `render_base`)."""
    model_hw = declared_hw(preprocess, spec)
    if model_hw is None and render_factor is not None:
        side = render_factor * RENDER_BASE_PX
        return geometry.stretch(source_hw, (side, side), preprocess.multiple_of)
    if preprocess.resize == "long-side" and preprocess.side is not None:
        return geometry.long_side(source_hw, preprocess.side, preprocess.multiple_of)
    if preprocess.resize == "short-side" and preprocess.side is not None:
        return geometry.short_side(source_hw, preprocess.side, preprocess.max_side, preprocess.multiple_of)
    if model_hw is None:
        return geometry.long_side(source_hw, max(source_hw), preprocess.multiple_of)
    if preprocess.resize == "letterbox":
        return geometry.letterbox(source_hw, model_hw, center=preprocess.anchor == "center")
    return geometry.stretch(source_hw, model_hw)


def to_tensor(image: Image, resize: Resize, preprocess: Preprocess, spec: TensorSpec) -> npt.NDArray[Any]:
    """`image` as the input tensor, in the layout, colour order and dtype that the network declares."""
    pixels = _placed(resized(image.rgb, resize.content_hw), resize, preprocess.pad_value)
    if preprocess.colour == "BGR":
        pixels = pixels[..., ::-1]
    planar = preprocess.layout.endswith("CHW")
    if planar:
        pixels = pixels.transpose(2, 0, 1)
    tensor = pixels if spec.dtype == "uint8" else _normalised(pixels, preprocess, planar).astype(spec.dtype, copy=False)
    return np.ascontiguousarray(tensor[None] if preprocess.layout.startswith("N") else tensor)


def _placed(content: UInt8, resize: Resize, pad_value: tuple[int, int, int]) -> UInt8:
    if resize.content_hw == resize.model_hw:
        return content
    canvas = np.empty((*resize.model_hw, 3), np.uint8)
    canvas[0] = pad_value
    canvas[1:] = canvas[0]  # whole rows are copied much faster than triples
    height, width = resize.content_hw
    canvas[resize.top : resize.top + height, resize.left : resize.left + width] = content
    return canvas


def _normalised(pixels: UInt8, preprocess: Preprocess, planar: bool) -> npt.NDArray[np.float32]:
    """(pixel * scale - mean) / std as one multiplication and one addition a channel; mean and std follow `colour`."""
    channels = (3, 1, 1) if planar else (3,)
    std = np.array(preprocess.std)
    gain = (preprocess.scale / std).astype(np.float32).reshape(channels)
    offset = (-np.array(preprocess.mean) / std).astype(np.float32).reshape(channels)
    # Written in the order of the layout, so that the transposition costs no pass of its own.
    result = np.multiply(pixels, gain, out=np.empty(pixels.shape, np.float32), dtype=np.float32)
    return np.add(result, offset, out=result) if offset.any() else result
