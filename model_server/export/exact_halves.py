"""An ONNX file without loss in fewer bytes: weights that float16 holds exactly are stored so, each behind a Cast.

ONNX Runtime folds the casts of a file whose kernels are float16 when it optimises it, which doubles the file; this
undoes it. The file is taken apart as Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding), since
where images are built neither `onnx` nor `protobuf` is installed. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

Buffer: TypeAlias = "bytes | memoryview"

_VARINT, _LENGTH = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT = 1, 5, 11
_VALUE_NAME = 1
_TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW_DATA = 2, 8, 9
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_I, _ATTRIBUTE_TYPE = 1, 3, 20
_INT, _FLOAT, _FLOAT16 = 2, 1, 10
_FEWEST = 256  # scales, sizes and thresholds weigh nothing, and some operators want them to be constants


class _Field(NamedTuple):
    number: int
    whole: memoryview
    """The field as it is written, its tag and length included."""
    value: int | memoryview


def with_exact_halves(model: bytes) -> bytes:
    """`model` with every float32 weight that float16 holds exactly stored as that."""
    return b"".join(
        _message(_MODEL_GRAPH, _graph(_bytes(field))) if field.number == _MODEL_GRAPH else field.whole
        for field in _fields(memoryview(model))
    )


def _graph(graph: memoryview) -> bytes:
    fields = list(_fields(graph))
    given = {_name(_bytes(field)) for field in fields if field.number == _GRAPH_INPUT}  # such a weight is a default
    casts: list[bytes] = []
    rest: list[Buffer] = []
    for field in fields:
        halved = _halved(_bytes(field)) if field.number == _GRAPH_INITIALIZER else None
        if halved is None or halved[1] in given:
            rest.append(field.whole)
            continue
        tensor, name = halved
        rest.append(_message(_GRAPH_INITIALIZER, tensor))
        casts.append(_message(_GRAPH_NODE, _cast(_half(name), name)))
    return b"".join([*casts, *rest])


def _halved(tensor: memoryview) -> tuple[bytes, bytes] | None:
    """The initialiser as float16 under a name of its own, and its old name; None where that would lose something."""
    fields = list(_fields(tensor))
    found = {field.number: field.value for field in fields}
    name, raw = found.get(_TENSOR_NAME), found.get(_TENSOR_RAW_DATA)
    if found.get(_TENSOR_DATA_TYPE) != _FLOAT or not isinstance(raw, memoryview) or not isinstance(name, memoryview):
        return None
    values = np.frombuffer(raw, "<f4")
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if len(values) < _FEWEST or not np.array_equal(halves.astype("<f4"), values):
        return None
    changed = {
        _TENSOR_DATA_TYPE: _number(_TENSOR_DATA_TYPE, _FLOAT16),
        _TENSOR_NAME: _message(_TENSOR_NAME, _half(bytes(name))),
        _TENSOR_RAW_DATA: _message(_TENSOR_RAW_DATA, halves.tobytes()),
    }
    return b"".join(changed.get(field.number, field.whole) for field in fields), bytes(name)


def _name(value: memoryview) -> bytes:
    """Of an input."""
    return next((bytes(_bytes(field)) for field in _fields(value) if field.number == _VALUE_NAME), b"")


def _half(name: bytes) -> bytes:
    return name + b".float16"


def _cast(source: bytes, target: bytes) -> bytes:
    """A node that casts `source` to float32."""
    to = [_message(_ATTRIBUTE_NAME, b"to"), _number(_ATTRIBUTE_I, _FLOAT), _number(_ATTRIBUTE_TYPE, _INT)]
    node = [
        _message(_NODE_INPUT, source),
        _message(_NODE_OUTPUT, target),
        _message(_NODE_OP_TYPE, b"Cast"),
        _message(_NODE_ATTRIBUTE, b"".join(to)),
    ]
    return b"".join(node)


def _fields(message: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        kind = tag & 7
        value: int | memoryview
        if kind == _VARINT:
            value, at = _varint(message, at)
        else:
            size = _FIXED_BYTES.get(kind)
            if kind == _LENGTH:
                size, at = _varint(message, at)
            assert size is not None, "ONNX Runtime writes no groups"
            value, at = message[at : at + size], at + size
        yield _Field(tag >> 3, message[begin:at], value)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _bytes(field: _Field) -> memoryview:
    assert isinstance(field.value, memoryview)
    return field.value


def _message(number: int, content: bytes) -> bytes:
    return _written(number << 3 | _LENGTH) + _written(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _written(number << 3 | _VARINT) + _written(value)


def _written(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
