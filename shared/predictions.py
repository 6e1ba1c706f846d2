"""What a task answers: frozen, free of wire formats and of numpy."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

Box: TypeAlias = tuple[float, float, float, float]
"""[x1, y1, x2, y2], floats in upright source pixels, max exclusive."""
Ring: TypeAlias = tuple[tuple[float, float], ...]
"""[[x, y], …] in upright source pixels, along the edges of pixels."""
Polygon: TypeAlias = tuple[Ring, ...]
"""The outer ring, then its holes."""


class Rle(msgspec.Struct, frozen=True):
    """A mask as COCO's compressed run lengths, column by column: `size` is [height, width] of the whole picture."""

    size: tuple[int, int]
    counts: str


Mask: TypeAlias = Rle | tuple[Polygon, ...] | bytes | None
"""A mask as `mask_format` asks for it: run lengths, polygons, a PNG (base64 in JSON), or none."""


class Array(msgspec.Struct, frozen=True):
    """Numbers as base64 of their little-endian bytes, row-major: far smaller than nested lists, and quick to read."""

    shape: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=8)]
    dtype: Literal["float16", "float32"]
    data: bytes


class Embedding(msgspec.Struct, frozen=True):
    """What an encoder made of one picture, by tensor name: sent back, it spares the encoder. `model` says whose it is,
    `size` is [height, width] of the upright picture."""

    model: str
    size: tuple[Annotated[int, Meta(ge=1)], Annotated[int, Meta(ge=1)]]
    arrays: dict[str, Array]


class Detection(msgspec.Struct, frozen=True):
    """One found object."""

    label: str
    class_id: int
    score: float
    box: Box


class Instance(msgspec.Struct, frozen=True):
    """One found object with its mask; `area` is the mask's, in source pixels."""

    label: str
    class_id: int
    score: float
    box: Box
    mask: Mask
    area: int


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mask that a prompt, or a point of the automatic grid, has brought: `score` is the model's own estimate of
    its IoU, `box` the mask's tight one, `prompt` the place of the box that asked for it among the request's. What
    follows is there where it was asked for, or for automatic masks: crop_box is the part that was looked at."""

    score: float
    mask: Mask
    area: int
    box: Box
    stability_score: float
    prompt: int | None = None
    logits: Array | None = None
    predicted_iou: float | None = None
    point: tuple[float, float] | None = None
    crop_box: Box | None = None


class Enlarged(msgspec.Struct, frozen=True, omit_defaults=True):
    """The enlarged picture, encoded as `format` says (base64 in JSON); `twin` is the bicubic one where asked for."""

    image: bytes
    width: int
    height: int
    format: Literal["png", "jpeg", "webp"]
    scale: int
    twin: bytes | None = None


T = TypeVar("T")


class Prediction(msgspec.Struct, Generic[T], frozen=True):
    """The answer for one picture: its upright size in source pixels, what was found by falling score, and notes;
    `render_factor` is the one that the network's input was made with, if any; `embedding` is there on request."""

    source_hw: tuple[int, int]
    predictions: tuple[T, ...]
    notes: tuple[str, ...] = ()
    render_factor: int | None = None
    embedding: Embedding | None = None


KINDS: dict[str, Any] = {
    "detection": Detection,
    "instance-segmentation": Instance,
    "promptable-segmentation": Segment,
    "super-resolution": Enlarged,
}
"""What the predictions of a task are; a task of the user's own gives what it likes."""


def kind_of(task: str) -> Any:
    """The type of a whole Prediction of `task`."""
    generic: Any = Prediction
    return generic[KINDS.get(task, Any)]
