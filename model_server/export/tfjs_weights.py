"""The weights of a TensorFlow.js model: `weightsManifest` in its JSON file, and the shards beside that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "uint8": "u1", "uint16": "<u2"}


def read_weights(document: dict[str, Any], folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Every weight by name. Quantised ones are `number * scale + min`, as tfjs-core's io_utils.ts has it. Raises
    ValueError for shards that do not hold exactly the declared weights."""
    return {name: value for group in document["weightsManifest"] for name, value in _group(group, folder)}


def _group(group: dict[str, Any], folder: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """One group of the manifest: its shards are one byte string, its weights lie in it one after the other."""
    data = b"".join((folder / shard).read_bytes() for shard in group["paths"])
    offset = 0
    for weight in group["weights"]:
        steps = weight.get("quantization")
        dtype, shape = np.dtype(_DTYPES[(steps or weight)["dtype"]]), tuple(weight["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        if offset + count * dtype.itemsize > len(data):
            raise ValueError(f"the shards {group['paths']} end before the weight {weight['name']!r} does")
        values = np.frombuffer(data, dtype, count, offset).reshape(shape)
        offset += values.nbytes
        yield weight["name"], _plain(values, steps, weight["dtype"]) if steps else values
    if offset != len(data):
        raise ValueError(f"the shards {group['paths']} hold {len(data)} bytes, the manifest declares {offset}")


def _plain(values: npt.NDArray[Any], steps: dict[str, Any], dtype: str) -> npt.NDArray[Any]:
    plain: npt.NDArray[Any] = (values.astype(np.float64) * steps["scale"] + steps["min"]).astype(_DTYPES[dtype])
    return plain
