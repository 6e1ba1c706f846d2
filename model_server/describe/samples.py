"""What a network is given to see what it answers: a grey picture and a photograph, prepared as its family's usually
are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from model_server.comparison.photos import SAMPLES
from model_server.describe.looked import Asked
from model_server.describe.roles import guessed
from model_server.describe.usual import preprocess
from shared.images import Image, Picture
from shared.manifest import Preprocess
from shared.tasks import preparation
from shared.tasks.companions import companions, told_apart
from shared.validation import convert

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.tensors import Tensors, TensorSpec

_PHOTO = SAMPLES / "street-small.jpg"
_GREY_HW = (480, 640)
_MOST_PIXELS = 10_000_000


def samples(asked: Asked, inputs: Sequence[TensorSpec]) -> list[Tensors]:
    """Two sets of arrays by input name. Axes that `inputs` leaves free have other sizes in the second."""
    grey = Image(np.full((*_GREY_HW, 3), 128, np.uint8), _GREY_HW)
    photo = Picture(_PHOTO.read_bytes(), _MOST_PIXELS).decode(None)
    specs = guessed(inputs, asked.roles)
    return [_prepared(asked.family or "", specs, grey, 1), _prepared(asked.family or "", specs, photo, 2)]


def _prepared(family: str, inputs: Sequence[TensorSpec], image: Image, part: int) -> Tensors:
    """`image` as the inputs take it; free sides are divided by `part`, a free batch axis has as many."""
    picture, others = told_apart(inputs, "--input")
    usual = convert(preprocess(family, picture.dtype, picture.shape), Preprocess)
    if usual.size and None in [picture.shape[usual.layout.index(axis)] for axis in "HW"]:
        usual = msgspec.structs.replace(usual, size=(usual.size[0] // part, usual.size[1] // part))
    resize = preparation.place(image.source_hw, usual, picture, part)
    arrays = {picture.name: preparation.to_tensor(image, resize, usual, picture), **companions(others, resize.model_hw)}
    return {spec.name: _repeated(arrays[spec.name], spec, part) for spec in inputs}


def _repeated(array: npt.NDArray[Any], spec: TensorSpec, times: int) -> npt.NDArray[Any]:
    batched = spec.shape[0] is None and array.shape[0] == 1
    return np.repeat(array, times, axis=0) if batched else array
