"""The Open Inference Protocol's messages: bytes and JSON, both ways, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from shared.backends.declared import Found
from shared.errors import ConfigurationError, ServerFailed
from shared.manifest import NetworkSpec
from shared.open_inference import (
    DATATYPES,
    HEAD_LENGTH,
    ModelMetadata,
    Tensor,
    check_served,
    dtype_of,
    flat,
    inference_reply,
    inference_request,
    model_metadata,
    speaks_binary,
    words,
)
from shared.server_http import Reply
from shared.tensors import TensorSpec

FLOATS = struct.pack("<3f", 1, 2.5, -3)
X = Tensor("x", "float32", (1, 3), FLOATS)
MASK = Tensor("mask", "bool", (2,), b"\x01\x00")
Y = {"name": "y", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}


def reply(outputs: list[Any], tail: bytes = b"", *, id: str = "7", head_length: str | None = None) -> Reply:  # noqa: A002
    head = json.dumps({"model_name": "m", "id": id, "outputs": outputs}).encode()
    headers = {HEAD_LENGTH.lower(): head_length or str(len(head))} if tail or head_length else {}
    return Reply(200, headers, head + tail)


def test_a_binary_request_is_its_head_and_the_tensors_as_they_lie() -> None:
    headers, (head, x, mask) = inference_request("7", [X, MASK], ["y"], binary=True)
    assert headers == {"Content-Type": "application/octet-stream", HEAD_LENGTH: str(len(head))}
    assert x is X.data
    assert mask is MASK.data
    assert json.loads(bytes(head)) == {
        "id": "7",
        "inputs": [
            {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}},
            {"name": "mask", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}},
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }


def test_a_json_request_has_the_values() -> None:
    headers, (body,) = inference_request("7", [X, MASK], ["y"], binary=False)
    assert headers == {"Content-Type": "application/json"}
    assert json.loads(bytes(body)) == {
        "id": "7",
        "inputs": [
            {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2.5, -3]},
            {"name": "mask", "shape": [2], "datatype": "BOOL", "data": [True, False]},
        ],
        "outputs": [{"name": "y"}],
    }


@pytest.mark.parametrize("dtype", DATATYPES)
def test_every_dtype_has_a_name_there_and_back(dtype: str) -> None:
    assert dtype_of(DATATYPES[dtype]) == dtype
    assert dtype_of(DATATYPES[dtype].lower()) == dtype


def test_a_binary_reply_is_read_in_the_order_of_its_outputs() -> None:
    light = {"name": "light", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}}
    tensors = inference_reply(reply([light, Y], b"\x00\x01" + FLOATS), "7")
    assert bytes(memoryview(tensors["light"].data)) == b"\x00\x01"  # type: ignore[arg-type]
    assert tensors["y"] == Tensor("y", "float32", (1, 3), memoryview(FLOATS))


@pytest.mark.parametrize("data", [[1, 2.5, -3], [[1, 2.5, -3]]])
def test_a_json_reply_is_read_flat_or_nested(data: list[Any]) -> None:
    tensors = inference_reply(reply([{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": data}]), "7")
    assert flat(tensors["y"]) == [1, 2.5, -3]


def test_what_is_no_number_may_be_written_so() -> None:
    body = b'{"id": "7", "outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [NaN, Infinity, null]}]}'
    assert str(flat(inference_reply(Reply(200, {}, body), "7")["y"])) == "[nan, inf, None]"


def test_an_empty_tensor_has_no_bytes() -> None:
    empty = {"name": "y", "datatype": "FP32", "shape": [0, 3], "parameters": {"binary_data_size": 0}}
    assert inference_reply(reply([empty]), "7")["y"].shape == (0, 3)


def test_a_reply_without_an_id_answers_whoever_asked() -> None:
    assert inference_reply(reply([Y], FLOATS, id=""), "7").keys() == {"y"}


def test_a_reply_to_another_request_is_refused() -> None:
    with pytest.raises(ServerFailed, match="another request"):
        inference_reply(reply([Y], FLOATS, id="8"), "7")


def sized(size: object) -> dict[str, Any]:
    return Y | {"parameters": {"binary_data_size": size}}


MALFORMED = {
    "shorter than it says": reply([Y], FLOATS[:-1]),
    "longer than it says": reply([Y], FLOATS + b"\x00"),
    "a size that does not fit its shape": reply([sized(8)], FLOATS),
    "a size below zero": reply([sized(-4)], FLOATS),
    "a size that is none": reply([sized("12")], FLOATS),
    "no size": reply([Y | {"parameters": {}}], FLOATS),
    "a shape below zero": reply([Y | {"shape": [-1, 3]}], FLOATS),
    "no shape": reply([{"name": "y", "datatype": "FP32", "data": [1]}]),
    "a shape of words": reply([Y | {"shape": ["1", "3"]}], FLOATS),
    "an output twice": reply([Y, Y], FLOATS + FLOATS),
    "a head that is longer than all": reply([Y], FLOATS, head_length="100000"),
    "a head of no length": reply([Y], FLOATS, head_length="all"),
    "a head that is cut": reply([Y], FLOATS, head_length="20"),
    "no outputs": Reply(200, {}, b'{"id": "7"}'),
    "nothing": Reply(200, {}, b""),
    "no JSON": Reply(200, {}, b"<html>"),
    "no object": Reply(200, {}, b"[]"),
    "no text": Reply(200, {}, b'{"id": "\xff"}'),
    "very deep": Reply(200, {}, b"[" * 100_000),
}


@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_reply_is_the_servers_failure(malformed: Reply) -> None:
    with pytest.raises(ServerFailed):
        inference_reply(malformed, "7")


@pytest.mark.parametrize("data", [[1, 2], [1, 2, 3, 4], [[1, 2], [3]], [[[1, 2, 3]], 4], [[1], 2, 3]])
def test_values_that_do_not_fit_their_shape_are_refused(data: list[Any]) -> None:
    tensor = Tensor("y", "float32", (1, 3), data)
    if data == [[1, 2], [3]]:  # three values all the same
        assert flat(tensor) == [1, 2, 3]
        return
    with pytest.raises(ServerFailed):
        flat(tensor)


def test_metadata_says_names_dtypes_and_shapes() -> None:
    body = b'{"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}], "outputs": []}'
    assert model_metadata(body) == ModelMetadata((Found("x", "float32", (None, 3)),), None)


@pytest.mark.parametrize("body", [b"{}", b'{"inputs": null, "outputs": null}', b'{"inputs": [], "outputs": []}'])
def test_metadata_may_say_nothing(body: bytes) -> None:
    assert model_metadata(body) == ModelMetadata(None, None)


def test_metadata_may_leave_shapes_out_and_write_datatypes_small() -> None:
    assert model_metadata(b'{"inputs": [{"name": "x", "datatype": "fp32"}]}').inputs == (Found("x", "float32", None),)


@pytest.mark.parametrize("body", [b"[]", b"<html>", b'{"inputs": [{"datatype": "FP32"}]}', b'{"inputs": {"x": 1}}'])
def test_malformed_metadata_is_the_servers_failure(body: bytes) -> None:
    with pytest.raises(ServerFailed):
        model_metadata(body)


def declared() -> NetworkSpec:
    inputs, outputs = (TensorSpec("x", "float32", (1, 3)),), (TensorSpec("y", "float32", (1, None)),)
    return NetworkSpec("own", "1", "detector", Path(), inputs, outputs, {}, "own.detector")


def test_a_server_that_says_nothing_of_its_model_is_believed() -> None:
    check_served(declared(), ModelMetadata(None, None))


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (Found("z", "float32", (1, 3)), r"inputs: there is no 'x' on the model server, only \['z'\]"),
        (Found("x", "uint8", (1, 3)), "expected dtype uint8 as on the model server, found float32"),
        (Found("x", "float32", (1, 4)), r"expected shape \[1, 4\] as on the model server, found \[1, 3\]"),
    ],
)
def test_what_differs_on_the_server_is_named(found: Found, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        check_served(declared(), ModelMetadata((found,), None))


def test_a_server_announces_that_it_speaks_binary() -> None:
    assert speaks_binary(b'{"name": "triton", "extensions": ["statistics", "binary_tensor_data"]}')
    assert not speaks_binary(b'{"name": "kserve"}')


@pytest.mark.parametrize(
    ("body", "said"),
    [(b'{"error": "out\\n\\nof"}', "out of"), (b"<b>no</b>", "<b>no</b>"), (b"\xff", "�"), (b"x" * 9999, "x" * 500)],
)
def test_what_a_server_says_is_one_short_line(body: bytes, said: str) -> None:
    assert words(body) == said
