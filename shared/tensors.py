"""Names, dtypes and shapes of what goes into a network and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Tensors: TypeAlias = Mapping[str, npt.NDArray[Any]]
    """Arrays by tensor name, in the dtype and shape that the network declares."""
    Float32: TypeAlias = npt.NDArray[np.float32]
    Int64: TypeAlias = npt.NDArray[np.int64]
    UInt8: TypeAlias = npt.NDArray[np.uint8]

DType = Literal["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"]
Axis = Annotated[int, msgspec.Meta(ge=1)]
Shape: TypeAlias = tuple[Axis | None, ...]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a network: `shape` has null where the axis is free."""

    name: str
    dtype: DType
    shape: Shape
    role: str | None = None
    """What the family should take this tensor for, where its name does not say: of outputs `boxes`, `scores`, …, of
    inputs `image`, `size`, `mask`."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` agrees with the declared axes."""
        return len(shape) == len(self.shape) and all(
            want is None or want == got for want, got in zip(self.shape, shape, strict=True)
        )


class DataFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that holds weights for another one: a path relative to the bundle, and its checksum."""

    file: str
    sha256: str


class Artifact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file that one backend runs: a path relative to the bundle, its checksum and where it came from; `data` are
    the files beside it that hold its weights, where an exporter has put them there. `signature` is the one to call of a
    TensorFlow SavedModel; `note` says what a converter has cost, such as the accuracy lost by INT8; `optimised` says
    what has optimised the graph ahead of time, for any processor: it may have operators that only that runtime knows,
    so it is opened by that version, or one near it, and not on a GPU."""

    file: str
    sha256: str
    source: str | None = None
    data: tuple[DataFile, ...] = ()
    signature: str = "serving_default"
    note: str | None = None
    optimised: str | None = None

    @property
    def files(self) -> tuple[DataFile, ...]:
        return (DataFile(self.file, self.sha256), *self.data)
