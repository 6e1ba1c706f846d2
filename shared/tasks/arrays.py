"""Numbers as a request sends them and a reply carries them: base64, a shape and a dtype."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np

from shared.errors import InvalidParameter
from shared.predictions import Array

if TYPE_CHECKING:
    from shared.tensors import Float32

_LARGEST = {dtype: float(np.finfo(dtype).max) for dtype in ("float16", "float32")}


def packed(values: Float32, dtype: Literal["float16", "float32"]) -> Array:
    """`values` of any shape; what float16 cannot hold becomes its largest number."""
    limit = _LARGEST[dtype]
    numbers = values if dtype == "float32" else np.clip(values, -limit, limit)
    return Array(values.shape, dtype, numbers.astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes())


def unpacked(array: Array, field: str) -> Float32:
    """The numbers, as float32. Raises InvalidParameter that names `field`, where they are not as many as the shape says
    or not finite."""
    dtype = np.dtype(array.dtype).newbyteorder("<")
    expected = prod(array.shape) * dtype.itemsize
    if len(array.data) != expected:
        raise InvalidParameter(
            f"{field}: {list(array.shape)} of {array.dtype} are {expected} bytes, found {len(array.data)}",
            parameter=field.partition(".")[0],
        )
    values: Float32 = np.frombuffer(array.data, dtype).astype(np.float32).reshape(array.shape)
    if not np.isfinite(values).all():
        raise InvalidParameter(f"{field}: expected finite numbers", parameter=field.partition(".")[0])
    return values
