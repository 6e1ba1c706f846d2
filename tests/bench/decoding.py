"""The known ways from an encoded photograph to a model's input tensor, and ours.

Run as a program with a way's name and a file, it prints by how many MB that way's peak memory passes what the process
held before, with everything imported and a tiny picture decoded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.images import Picture
from shared.manifest import Preprocess
from shared.tasks import preparation
from shared.tensors import TensorSpec
from tests.bench.pictures import tiny
from tests.bench.processes import status_mb

Tensor: TypeAlias = npt.NDArray[Any]
Way: TypeAlias = Callable[[bytes], Tensor]

OURS = "ours"
_MAX_PIXELS = 64_000_000
_SIDE = 640
_GREY = 114
_SMALL = 300

_LETTERBOX = Preprocess(size=(_SIDE, _SIDE), resize="letterbox", scale=1 / 255)
_LETTERBOX_SPEC = TensorSpec("images", "float32", (1, 3, _SIDE, _SIDE))
_STRETCH = Preprocess(size=(_SMALL, _SMALL), resize="stretch", layout="NHWC")
_STRETCH_SPEC = TensorSpec("image", "uint8", (1, _SMALL, _SMALL, 3))


def letterbox_ways() -> dict[str, Way]:
    """Ways to float32 [1, 3, 640, 640] in 0..1, aspect kept on grey; those whose package is missing are left out."""
    ways: dict[str, Way] = {
        OURS: lambda data: _ours(data, _LETTERBOX, _LETTERBOX_SPEC),
        "naive Pillow + numpy float": _naive,
        "Pillow full": lambda data: _letterboxed(_with_pillow(data, draft=False)),
        "Pillow draft": lambda data: _letterboxed(_with_pillow(data, draft=True)),
    }
    return ways | {name: _then(read, _letterboxed) for name, read in _cv2_readers(_fitting, 4).items()}


def stretch_ways() -> dict[str, Way]:
    """Ways to uint8 [1, 300, 300, 3]."""
    ways: dict[str, Way] = {
        OURS: lambda data: _ours(data, _STRETCH, _STRETCH_SPEC),
        "Pillow draft": lambda data: _with_pillow_stretched(data)[None],
    }
    readers = _cv2_readers(lambda size: (_SMALL, _SMALL), 8)
    return ways | {name: _then(read, lambda pixels: pixels[None]) for name, read in readers.items()}


def _ours(data: bytes, preprocess: Preprocess, spec: TensorSpec) -> Tensor:
    picture = Picture(data, _MAX_PIXELS)
    resize = preparation.place(picture.header.upright_hw, preprocess, spec)
    return preparation.to_tensor(picture.decode(resize.content_hw), resize, preprocess, spec)


def _naive(data: bytes) -> Tensor:
    """The picture as floats first, then everything else on them."""
    full = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(np.float32) / 255
    width, height = _fitting((full.shape[1], full.shape[0]))
    small = Image.fromarray((full * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    return _letterboxed(np.asarray(small))


def _with_pillow(data: bytes, *, draft: bool) -> Tensor:
    image = Image.open(BytesIO(data))
    size = _fitting(image.size)
    if draft:
        image.draft("RGB", size)
    return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))


def _with_pillow_stretched(data: bytes) -> Tensor:
    image = Image.open(BytesIO(data))
    image.draft("RGB", (_SMALL, _SMALL))
    return np.asarray(image.convert("RGB").resize((_SMALL, _SMALL), Image.Resampling.BILINEAR))


def _cv2_readers(target: Callable[[tuple[int, int]], tuple[int, int]], reduction: int) -> dict[str, Way]:
    """OpenCV decodes by libjpeg-turbo; its colours are turned to RGB while the picture is small."""
    names = ("cv2 full", f"cv2 REDUCED_COLOR_{reduction}")
    if find_spec("cv2") is None:
        return {}
    cv2 = import_module("cv2")

    def reader(flag: int, scale: int) -> Way:
        def read(data: bytes) -> Tensor:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
            size = target((pixels.shape[1] * scale, pixels.shape[0] * scale))
            small: Tensor = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
            return small[..., ::-1]

        return read

    reduced = getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduction}")
    return dict(zip(names, (reader(cv2.IMREAD_COLOR, 1), reader(reduced, reduction)), strict=True))


def _then(read: Way, finish: Callable[[Tensor], Tensor]) -> Way:
    return lambda data: np.ascontiguousarray(finish(read(data)))


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    scale = _SIDE / max(size)
    return round(size[0] * scale), round(size[1] * scale)


def _letterboxed(pixels: Tensor) -> Tensor:
    canvas = np.full((_SIDE, _SIDE, 3), _GREY, np.uint8)
    height, width = pixels.shape[:2]
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    return np.ascontiguousarray((canvas.astype(np.float32) / 255).transpose(2, 0, 1)[None])


def _peak_mb(way: Way, data: bytes) -> float:
    way(tiny())
    before = status_mb("self", "VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    way(data)
    return status_mb("self", "VmHWM") - before


if __name__ == "__main__":
    sys.stdout.write(f"{_peak_mb(letterbox_ways()[sys.argv[1]], Path(sys.argv[2]).read_bytes()):.3f}\n")
