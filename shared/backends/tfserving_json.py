"""Tensors as TensorFlow Serving's REST interface has them: nested lists of JSON numbers, row by row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from shared.tensors import TensorSpec, UInt8

# Each value of a byte with the comma behind it, in as many characters: JSON lets blanks stand before a number, and so
# the text of a picture is an array too, which numpy fills thirty times faster than numbers are written one by one.
_WORDS = np.frombuffer(b"".join(b"%3d," % value for value in range(256)), np.uint32)


def write(array: npt.NDArray[Any]) -> bytes | memoryview:
    """The JSON text of `array`."""
    if array.dtype == np.uint8 and array.ndim and array.size:
        return _write_bytes(np.ascontiguousarray(array))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return json.dumps(array.tolist()).encode()  # NaN and Infinity, which the server reads
    return msgspec.json.encode(array.tolist())


def _write_bytes(array: UInt8) -> memoryview:
    text = _WORDS[array].view(np.uint8)
    for _ in range(array.ndim):
        *outer, width = text.shape
        lists = np.empty((*outer, width + 2), np.uint8)
        lists[..., 0] = ord("[")
        lists[..., 1:-1] = text
        lists[..., -2:] = np.frombuffer(b"],", np.uint8)  # the bracket stands in the place of the last comma
        text = lists.reshape(*outer[:-1], -1)
    return text[:-1].data


def decode(text: bytes) -> Any:
    """Any JSON value, in which NaN, Infinity and -Infinity may stand for numbers. Raises ValueError, RecursionError."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)


def read(value: object, spec: TensorSpec) -> npt.NDArray[Any]:
    """The array, of the declared dtype, that the decoded JSON `value` holds. Raises ValueError.

    The lists of an empty array may end before its last axis: [] is also what has 0 x 4 values.
    """
    try:
        array = np.array(value, spec.dtype)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{spec.name}: {error}") from error
    if array.size == 0 and array.ndim < len(spec.shape):
        return array.reshape(*array.shape, *(side or 0 for side in spec.shape[array.ndim :]))
    return array
