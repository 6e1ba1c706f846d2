"""The Open Inference Protocol's messages over HTTP: tensors into a request, a reply into tensors.

https://github.com/kserve/open-inference-protocol, and Triton's extension for binary tensors: the JSON comes first, its
length in `Inference-Header-Content-Length`, then the tensors one after the other, little-endian, without anything
between. Knows no numpy: a tensor's data is bytes, or the values that JSON had.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any

import msgspec

from shared.backends.declared import Found, check_declared
from shared.errors import ServerFailed

if TYPE_CHECKING:
    from shared.manifest import NetworkSpec
    from shared.server_connections import Piece
    from shared.server_http import Reply
    from shared.tensors import TensorSpec

HEAD_LENGTH = "Inference-Header-Content-Length"
BINARY_EXTENSION = "binary_tensor_data"
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""The protocol's names of our dtypes."""
_DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
_FORMATS = {
    "bool": "?",
    "uint8": "B",
    "int8": "b",
    "int32": "i",
    "int64": "q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
}
"""The letters of the struct module."""
_LONGEST_WORDS = 500


class Tensor(msgspec.Struct, frozen=True):
    """A tensor on its way: `dtype` is ours where the protocol's has one, `data` bytes in row-major order; in a reply
    that came as JSON a list of values, flat or nested."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Piece | list[Any]


class ModelMetadata(msgspec.Struct, frozen=True):
    """What a server says of a model; None where it says nothing of its inputs, or of its outputs."""

    inputs: tuple[Found, ...] | None
    outputs: tuple[Found, ...] | None


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int] | None = None
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class _Inference(msgspec.Struct):
    outputs: list[_Tensor]
    id: str | None = None


class _Model(msgspec.Struct):
    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None


class _Server(msgspec.Struct):
    extensions: list[str] = []


class _Error(msgspec.Struct):
    error: str


def dtype_of(datatype: str) -> str:
    """Our name of a protocol's datatype; its own, in lower case, where we have none."""
    return _DTYPES.get(datatype.upper(), datatype.lower())


def inference_request(
    request_id: str, inputs: Sequence[Tensor], outputs: Sequence[str], *, binary: bool
) -> tuple[dict[str, str], list[Piece]]:
    """Headers and body of a request for `outputs`, as JSON or, with `binary`, as bytes both ways: those of the inputs
    are sent from where they lie."""
    wanted: dict[str, Any] = {"parameters": {"binary_data": True}} if binary else {}
    head = msgspec.json.encode(
        {
            "id": request_id,
            "inputs": [_described(tensor, binary=binary) for tensor in inputs],
            "outputs": [{"name": name, **wanted} for name in outputs],
        }
    )
    if not binary:
        return {"Content-Type": "application/json"}, [head]
    headers = {"Content-Type": "application/octet-stream", HEAD_LENGTH: str(len(head))}
    return headers, [head, *(_bytes(tensor) for tensor in inputs)]


def _described(tensor: Tensor, *, binary: bool) -> dict[str, Any]:
    how: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": DATATYPES[tensor.dtype]}
    data = _bytes(tensor)
    if binary:
        return how | {"parameters": {"binary_data_size": len(data)}}
    return how | {"data": struct.unpack(f"<{prod(tensor.shape)}{_FORMATS[tensor.dtype]}", data)}


def _bytes(tensor: Tensor) -> Piece:
    assert not isinstance(tensor.data, list), "a request's tensors are bytes"
    return tensor.data


def inference_reply(reply: Reply, request_id: str) -> dict[str, Tensor]:
    """The tensors of a reply, by name: of those that came as bytes a view of the reply's body. Raises ServerFailed
    where the reply is malformed, or answers another request."""
    body = memoryview(reply.body)
    length = _head_length(reply.headers, len(body))
    answer = _decoded(body[:length], _Inference)
    if answer.id and answer.id != request_id:
        raise ServerFailed("the model server answered another request")
    tensors, rest = {}, body[length:]
    for output in answer.outputs:
        tensor, rest = _tensor(output, rest)
        tensors[tensor.name] = tensor
    if rest or len(tensors) < len(answer.outputs):
        raise _malformed("bytes that belong to no output" if rest else "an output twice")
    return tensors


def _head_length(headers: Mapping[str, str], total: int) -> int:
    said = headers.get(HEAD_LENGTH.lower())
    if said is None:
        return total
    if not said.isdecimal() or int(said) > total:
        raise _malformed("the length of its head")
    return int(said)


def _tensor(output: _Tensor, rest: memoryview) -> tuple[Tensor, memoryview]:
    """The output, and what is left of the bytes after it."""
    dtype, shape = dtype_of(output.datatype), tuple(output.shape or ())
    if output.shape is None or any(axis < 0 for axis in shape):
        raise _malformed(f"no shape of output {output.name!r}")
    if output.data is not None:
        return Tensor(output.name, dtype, shape, output.data), rest
    size = (output.parameters or {}).get("binary_data_size")
    if not isinstance(size, int) or not 0 <= size <= len(rest):
        raise _malformed(f"the size of output {output.name!r}")
    check_size(output.name, dtype, shape, size)
    return Tensor(output.name, dtype, shape, rest[:size]), rest[size:]


def check_size(name: str, dtype: str, shape: tuple[int, ...], size: int) -> None:
    """Whether `size` bytes are the values of a tensor; nothing is known of a dtype that is not ours. Raises
    ServerFailed."""
    if dtype in _FORMATS and size != prod(shape) * struct.calcsize(f"<{_FORMATS[dtype]}"):
        raise _malformed(f"{size} bytes for output {name!r}, {dtype} {list(shape)}")


def flat(tensor: Tensor) -> list[Any]:
    """The values of a tensor that came as JSON, flat or nested by its axes. Raises ServerFailed where there are more or
    fewer than the shape says."""
    values: list[Any] = list(tensor.data)
    try:
        for _ in range(len(tensor.shape) - 1):
            if values and isinstance(values[0], list):
                values = list(chain.from_iterable(values))
    except TypeError as error:
        raise _malformed(f"the values of output {tensor.name!r}") from error
    if len(values) != prod(tensor.shape):
        raise _malformed(f"{len(values)} values for output {tensor.name!r}, {tensor.dtype} {list(tensor.shape)}")
    return values


def model_metadata(body: bytes) -> ModelMetadata:
    """Raises ServerFailed where the metadata is malformed."""
    model = _decoded(body, _Model)
    return ModelMetadata(_all_found(model.inputs), _all_found(model.outputs))


def _all_found(tensors: list[_Tensor] | None) -> tuple[Found, ...] | None:
    # A server that was not told what a model takes says that it takes nothing.
    return tuple(found(each.name, each.datatype, each.shape) for each in tensors) if tensors else None


def found(name: str, datatype: str, shape: Sequence[int] | None) -> Found:
    """A tensor of a model's metadata, where -1 is a free axis."""
    axes = None if shape is None else tuple(None if axis < 0 else axis for axis in shape)
    return Found(name, dtype_of(datatype), axes)


def check_served(network: NetworkSpec, metadata: ModelMetadata) -> None:
    """Whether the server has the network that model.json declares, as far as it tells. Raises ConfigurationError."""
    inputs = metadata.inputs or _as_declared(network.inputs)
    outputs = metadata.outputs or _as_declared(network.outputs)
    check_declared(network, inputs, outputs, "on the model server")


def _as_declared(specs: Sequence[TensorSpec]) -> tuple[Found, ...]:
    return tuple(Found(spec.name, spec.dtype, spec.shape) for spec in specs)


def speaks_binary(body: bytes) -> bool:
    """Whether a server's metadata announces tensors as bytes."""
    return BINARY_EXTENSION in _decoded(body, _Server).extensions


def words(body: bytes) -> str:
    """What a server says went wrong, for a log."""
    try:
        said = msgspec.json.decode(body, type=_Error).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = bytes(body[:_LONGEST_WORDS]).decode("utf-8", "replace")
    return " ".join(said.split())[:_LONGEST_WORDS]


def _decoded(data: bytes | memoryview, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:  # some servers write NaN and Infinity, which are not JSON
        return msgspec.convert(json.loads(bytes(data)), kind)
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise _malformed("no JSON") from error


def _malformed(what: str) -> ServerFailed:
    return ServerFailed(f"the model server's answer cannot be read: {what[:200]}")
