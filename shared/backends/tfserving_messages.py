"""TensorFlow Serving's messages: those parts of them that a client needs, without TensorFlow.

They are made when this is imported, of field numbers and types that are the same on the wire as those of
tensorflow_serving/apis/*.proto and tensorflow/core/framework/*.proto, in a pool of their own: nothing here is tied to a
version of protobuf, and TensorFlow's own messages may be loaded beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from shared.backends.declared import Found

MalformedMessage = DecodeError
_PACKAGE = "thinlens.tfserving"
_LONGEST_VARINT = 10
_MOST_REPEATED = 1 << 26  # values that a reply may leave out; a shape that is a lie must not take the memory
_SCALARS = {"bool", "bytes", "int32", "int64", "string"}

# `field = number type`; `[x]` is a repeated x, `{x}` a map from string to x. The values of a tensor are read as bytes:
# on the wire a packed list of numbers is nothing else, and numpy reads it where it lies. It may come in several pieces.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "Int64Value": {"value": (1, "int64")},
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorShape": {"dim": (2, "[Dim]"), "unknown_rank": (3, "bool")},
    "Tensor": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShape"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "[bytes]"),
        "double_val": (6, "[bytes]"),
        "int_val": (7, "[bytes]"),
        "int64_val": (10, "[bytes]"),
        "bool_val": (11, "[bytes]"),
        "half_val": (13, "[bytes]"),
    },
    "ModelSpec": {"name": (1, "string"), "version": (2, "Int64Value"), "signature_name": (3, "string")},
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "{Tensor}"),
        "output_filter": (3, "[string]"),
    },
    "PredictResponse": {"outputs": (1, "{Tensor}"), "model_spec": (2, "ModelSpec")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "GetModelStatusResponse": {"model_version_status": (1, "[ModelVersionStatus]")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32"), "status": (3, "Status")},
    "Status": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "[string]")},
    "GetModelMetadataResponse": {"model_spec": (1, "ModelSpec"), "metadata": (2, "{Any}")},
    "SignatureDefMap": {"signature_def": (1, "{SignatureDef}")},
    "SignatureDef": {"inputs": (1, "{TensorInfo}"), "outputs": (2, "{TensorInfo}"), "method_name": (3, "string")},
    "TensorInfo": {"name": (1, "string"), "dtype": (2, "int32"), "tensor_shape": (3, "TensorShape")},
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="thinlens/tfserving.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add(message, field, number, kind)
    return file


def _add(message: Any, field: str, number: int, kind: str) -> None:
    added = message.field.add(name=field, number=number, label=3 if kind[0] in "[{" else 1)
    bare = kind.strip("[]{}")
    if kind.startswith("{"):
        # A map is a repeated message of key and value that says of itself that it is a map's.
        entry = message.nested_type.add(name=f"{field.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add(entry, "key", 1, "string")
        _add(entry, "value", 2, bare)
        bare = f"{message.name}.{entry.name}"
    if bare in _SCALARS:
        added.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{bare.upper()}")
    else:
        added.type, added.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{bare}"


_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_file().SerializeToString())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Tensor = _class("Tensor")
PredictRequest = _class("PredictRequest")
PredictResponse = _class("PredictResponse")
GetModelStatusRequest = _class("GetModelStatusRequest")
GetModelStatusResponse = _class("GetModelStatusResponse")
GetModelMetadataRequest = _class("GetModelMetadataRequest")
GetModelMetadataResponse = _class("GetModelMetadataResponse")
SignatureDefMap = _class("SignatureDefMap")

Bytes = npt.NDArray[np.uint8]


def _varints(packed: Bytes) -> npt.NDArray[np.int64]:
    """Protobuf's integers of seven bits a byte, least significant first; the last byte of each is below 128."""
    last = np.flatnonzero(packed < 0x80)
    if packed.size and not last.size:
        raise ValueError("an integer without an end")
    if last.size == packed.size:  # each is one byte, as 0..127 are
        return packed.astype(np.int64)
    length = np.diff(last, prepend=-1)
    values = (packed[last] & 0x7F).astype(np.int64)
    for back in range(1, min(int(length.max(initial=1)), _LONGEST_VARINT)):
        longer = np.flatnonzero(length > back)
        values[longer] = (values[longer] << 7) | (packed[last[longer] - back] & 0x7F)
    return values


class _Kind(NamedTuple):
    """How TensorFlow writes a dtype: its number in types.proto, the field of a tensor that lists values of it, and how
    the bytes of that field are read."""

    number: int
    field: str
    read: Callable[[Bytes], npt.NDArray[Any]]


_KINDS = {
    "float32": _Kind(1, "float_val", lambda packed: packed.view("<f4")),
    "float64": _Kind(2, "double_val", lambda packed: packed.view("<f8")),
    "int32": _Kind(3, "int_val", lambda packed: _varints(packed).astype(np.int32)),
    "uint8": _Kind(4, "int_val", lambda packed: _varints(packed).astype(np.uint8)),
    "int8": _Kind(6, "int_val", lambda packed: _varints(packed).astype(np.int8)),
    "int64": _Kind(9, "int64_val", _varints),
    "bool": _Kind(10, "bool_val", lambda packed: packed.astype(np.bool_)),
    "float16": _Kind(19, "half_val", lambda packed: _varints(packed).astype(np.uint16).view(np.float16)),
}
_NAMES = {kind.number: name for name, kind in _KINDS.items()}
_OTHER_NAMES = {0: "no dtype", 5: "int16", 7: "string", 14: "bfloat16", 17: "uint16", 22: "uint32", 23: "uint64"}


def dtype_name(number: int) -> str:
    """What a dtype of types.proto is called here; one that no network may have is told by its own name."""
    return _NAMES.get(number) or _OTHER_NAMES.get(number, f"dtype {number}")


def write_tensor(array: npt.NDArray[Any], tensor: Any) -> None:
    """Puts `array` into the empty message `tensor`."""
    tensor.dtype = _KINDS[array.dtype.name].number
    dims = tensor.tensor_shape.dim
    for side in array.shape:
        dims.add().size = side
    tensor.tensor_content = (array if sys.byteorder == "little" else array.byteswap()).tobytes()


def read_tensor(tensor: Any) -> npt.NDArray[Any]:
    """The array of a TensorProto, not to be written to. Raises ValueError where it is none that a network may give.

    Values come as the bytes of `tensor_content`, or as a list in the field of their dtype, which ends early where
    its last value goes on to the end (tensorflow/core/framework/tensor.proto).
    """
    kind = _KINDS.get(dtype_name(tensor.dtype))
    if kind is None or tensor.tensor_shape.unknown_rank:
        raise ValueError(f"a tensor of {dtype_name(tensor.dtype)}, or of unknown shape")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if min(shape, default=0) < 0:
        raise ValueError(f"a tensor of shape {shape}")
    if tensor.tensor_content:
        content = np.frombuffer(tensor.tensor_content, np.dtype(dtype_name(tensor.dtype)).newbyteorder("<"))
        return content.reshape(shape)
    return _listed(tensor, kind, shape)


def _listed(tensor: Any, kind: _Kind, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    pieces = getattr(tensor, kind.field)
    values = kind.read(np.frombuffer(pieces[0] if len(pieces) == 1 else b"".join(pieces), np.uint8))
    missing = prod(shape) - values.size
    if missing > _MOST_REPEATED:
        raise ValueError(f"a tensor of shape {shape} with {values.size} values")
    if missing <= 0:
        return values.reshape(shape)
    if not values.size:
        if len(UnknownFieldSet(tensor)):
            raise ValueError("a tensor without values, or with values in a form that is not known")
        return np.zeros(shape, values.dtype)
    return np.concatenate((values, np.repeat(values[-1:], missing))).reshape(shape)


def found(tensors: Mapping[str, Any]) -> tuple[Found, ...]:
    """The tensors that one side of a SignatureDef describes."""
    return tuple(
        Found(
            name,
            dtype_name(info.dtype),
            None
            if info.tensor_shape.unknown_rank
            else tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim),
        )
        for name, info in sorted(tensors.items())
    )
