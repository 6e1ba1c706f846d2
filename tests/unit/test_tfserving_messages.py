"""TensorFlow Serving's messages and JSON without TensorFlow: what is written, and what of a reply is read."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.backends import tfserving_json
from shared.backends import tfserving_messages as messages
from shared.tensors import TensorSpec
from tests.servers import ROOT, environ

FLOAT, INT32, UINT8, BOOL = 1, 3, 4, 10
SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=4)


def tensor(dtype: int, shape: tuple[int, ...], **fields: Any) -> Any:
    made = messages.Tensor(dtype=dtype, **fields)
    for side in shape:
        made.tensor_shape.dim.add(size=side)
    return made


def parsed(wire: bytes) -> npt.NDArray[Any]:
    return messages.read_tensor(messages.Tensor.FromString(wire))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"])
def test_a_tensor_is_written_as_its_bytes_and_read_again(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    written = messages.Tensor()
    messages.write_tensor(array, written)
    assert written.tensor_content == array.tobytes()
    np.testing.assert_array_equal(messages.read_tensor(written), array)


def test_a_list_of_floats_is_read_where_it_lies() -> None:
    values = np.array([1.5, -2.0], np.float32)
    read = messages.read_tensor(tensor(FLOAT, (2,), float_val=[values.tobytes()]))
    assert read.tolist() == [1.5, -2.0]
    assert not read.flags.owndata


def test_a_list_in_several_pieces_is_one() -> None:
    pieces = [np.float32(value).tobytes() for value in (1, 2, 3)]
    assert messages.read_tensor(tensor(FLOAT, (3,), float_val=pieces)).tolist() == [1, 2, 3]


def test_negative_numbers_take_ten_bytes() -> None:
    minus_two = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    assert messages.read_tensor(tensor(INT32, (3,), int_val=[b"\x05" + minus_two + b"\xac\x02"])).tolist() == [
        5,
        -2,
        300,
    ]


def test_a_last_value_goes_on_to_the_end() -> None:
    assert messages.read_tensor(tensor(UINT8, (2, 2), int_val=[b"\x01\x02"])).tolist() == [[1, 2], [2, 2]]


def test_no_value_at_all_is_nothing_but_zeros() -> None:
    assert messages.read_tensor(tensor(BOOL, (2,))).tolist() == [False, False]


def test_a_scalar_has_no_axes() -> None:
    assert messages.read_tensor(tensor(UINT8, (), int_val=[b"\x07"])).shape == ()


WRONG = {
    "text": tensor(7, (1,)),
    "no dtype": tensor(0, (1,)),
    "too many values": tensor(UINT8, (1,), int_val=[b"\x01\x02"]),
    "half a value": tensor(FLOAT, (1,), float_val=[b"\0\0"]),
    "too little content": tensor(FLOAT, (2,), tensor_content=b"\0\0\0\0"),
    "a number without an end": tensor(UINT8, (1,), int_val=[b"\x81"]),
    "a side below zero": tensor(FLOAT, (-1,)),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_tensor_is_refused(case: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        messages.read_tensor(WRONG[case])


def test_values_that_are_not_packed_are_refused_rather_than_read_as_zeros() -> None:
    unpacked = b"\x2d" + np.float32(1).tobytes()
    with pytest.raises(ValueError, match="in a form that is not known"):
        parsed(tensor(FLOAT, (1,)).SerializeToString() + unpacked)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_tensor_or_refused(wire: bytes) -> None:
    try:
        read = messages.Tensor.FromString(wire)
    except messages.MalformedMessage:
        return
    if np.prod([dim.size for dim in read.tensor_shape.dim], dtype=object) < 1000:
        try:
            messages.read_tensor(read)
        except ValueError:
            return


def test_neither_grpc_nor_tensorflow_is_needed_for_the_messages() -> None:
    script = "import sys, shared.backends.tfserving_messages; print({'grpc', 'tensorflow'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environ({}), capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


@given(SHAPES)
def test_a_picture_as_json_text_is_the_picture(shape: list[int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert json.loads(bytes(tfserving_json.write(picture))) == picture.tolist()


def test_the_way_that_a_picture_lies_in_memory_does_not_matter() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
    assert json.loads(bytes(tfserving_json.write(picture))) == picture.tolist()


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "float32", "float64"])
def test_a_tensor_as_json_text_is_the_tensor(dtype: str) -> None:
    array = (np.random.default_rng(0).normal(size=(2, 3)) * 50).astype(dtype)
    np.testing.assert_array_equal(np.array(json.loads(bytes(tfserving_json.write(array))), dtype), array)


def test_what_is_not_finite_is_written_as_the_server_reads_it() -> None:
    array = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    assert tfserving_json.write(array) == b"[NaN, Infinity, -Infinity, 1.0]"


def test_what_is_not_finite_is_read() -> None:
    value = tfserving_json.decode(b'{"outputs": [NaN, Infinity, -Infinity, 0.1]}')["outputs"]
    expected = np.array([np.nan, np.inf, -np.inf, 0.1], np.float32)
    np.testing.assert_array_equal(tfserving_json.read(value, TensorSpec("y", "float32", (4,))), expected)


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [([], (None, 4), (0, 4)), ([[]], (1, None, 4), (1, 0, 4)), ([], (None,), (0,)), ([], (None, None, 6), (0, 0, 6))],
)
def test_an_empty_list_has_the_axes_that_were_declared(value: Any, shape: Any, expected: tuple[int, ...]) -> None:
    assert tfserving_json.read(value, TensorSpec("y", "float32", shape)).shape == expected


@pytest.mark.parametrize("value", [[[1], [1, 2]], "text", {"b64": "AA=="}, [{}], [[1, [2]]]])
def test_what_is_no_array_of_numbers_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        tfserving_json.read(value, TensorSpec("y", "float32", (None, None)))


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^y: "):
        tfserving_json.read([256], TensorSpec("y", "uint8", (1,)))
