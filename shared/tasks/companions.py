"""What some exports want beside the picture: the size of the tensor, or a mask of its real pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.geometry import HW
    from shared.tensors import TensorSpec

PICTURE, SIZE, MASK = "image", "size", "mask"
# By the names that exporters give them: RT-DETR's and D-FINE's deploy scripts, and Optimum's for DETR.
_USUAL = {"orig_target_sizes": SIZE, "pixel_mask": MASK}


def told_apart(inputs: Sequence[TensorSpec], field: str) -> tuple[TensorSpec, dict[str, TensorSpec]]:
    """The picture's input, and the others by role. Raises ConfigurationError where there is not just one picture, or an
    input whose shape its role cannot have."""
    by_role = {spec.name: spec.role or _USUAL.get(spec.name, PICTURE) for spec in inputs}
    pictures = [spec for spec in inputs if by_role[spec.name] == PICTURE]
    if len(pictures) != 1 or len(set(by_role.values())) < len(inputs):
        raise ConfigurationError(
            f"{field}: expected one picture, and beside it at most an input of role {SIZE!r} and one of role {MASK!r}, "
            f"found {[spec.name for spec in inputs]}"
        )
    others = {by_role[spec.name]: spec for spec in inputs if spec is not pictures[0]}
    unknown = sorted(others.keys() - {SIZE, MASK})
    if unknown:
        raise ConfigurationError(f"{field}: role: expected {PICTURE!r}, {SIZE!r} or {MASK!r}, found {unknown[0]!r}")
    if SIZE in others and not others[SIZE].fits((1, 2)):
        raise ConfigurationError(
            f"{field}: {others[SIZE].name!r}: expected shape [1, 2], found {list(others[SIZE].shape)}"
        )
    if MASK in others and len(others[MASK].shape) != 3:
        raise ConfigurationError(
            f"{field}: {others[MASK].name!r}: expected shape [1, H, W], found {list(others[MASK].shape)}"
        )
    return pictures[0], others


def companions(others: dict[str, TensorSpec], model_hw: HW) -> dict[str, npt.NDArray[Any]]:
    """The arrays by input name. The size is the tensor's own, [[width, height]], so that boxes come in its pixels; the
    mask [1, H, W] is all ones: what a letterbox pads counts as picture."""
    height, width = model_hw
    arrays: dict[str, npt.NDArray[Any]] = {}
    for role, spec in others.items():
        if role == SIZE:
            arrays[spec.name] = np.array([[width, height]], spec.dtype)
        else:
            free = (1, height, width)
            shape = [fixed or own for fixed, own in zip(spec.shape, free, strict=True)]
            arrays[spec.name] = np.ones(shape, spec.dtype)
    return arrays
