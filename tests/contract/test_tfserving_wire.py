"""Our own messages are TensorFlow Serving's on the wire, byte by byte: judged by the official generated ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shared.backends import tfserving_messages as ours
from shared.backends.declared import Found

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_serving")
from tensorflow.core.framework import tensor_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

pytestmark = pytest.mark.servers
FIELDS = {
    "bool": "bool_val",
    "uint8": "int_val",
    "int8": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "float16": "half_val",
    "float32": "float_val",
    "float64": "double_val",
}
SHAPES: list[tuple[int, ...]] = [(), (3,), (2, 5, 3), (0, 4), (1, 0)]
EVERY_DTYPE = pytest.mark.parametrize("dtype", FIELDS)
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES)


def values(dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    numbers = np.random.default_rng(0).normal(size=shape) * 100
    return np.asarray(numbers > 0 if dtype == "bool" else numbers.astype(np.int64).astype(dtype))


def same(array: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    return array.dtype == expected.dtype and array.shape == expected.shape and array.tobytes() == expected.tobytes()


def listed(array: npt.NDArray[Any]) -> Any:
    """The official message with the values in the field of their dtype, as the real server answers."""
    tensor = tensor_pb2.TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum)
    for side in array.shape:
        tensor.tensor_shape.dim.add(size=side)
    bits = array.view(np.uint16) if array.dtype == np.float16 else array
    getattr(tensor, FIELDS[array.dtype.name]).extend(bits.ravel().tolist())
    return tensor


@EVERY_DTYPE
@EVERY_SHAPE
def test_a_tensor_of_ours_is_read_by_the_official_message(dtype: str, shape: tuple[int, ...]) -> None:
    array, tensor = values(dtype, shape), ours.Tensor()
    ours.write_tensor(array, tensor)
    assert same(tf.make_ndarray(tensor_pb2.TensorProto.FromString(tensor.SerializeToString())), array)


@EVERY_DTYPE
@EVERY_SHAPE
def test_an_official_list_of_values_is_read_by_ours(dtype: str, shape: tuple[int, ...]) -> None:
    array = values(dtype, shape)
    assert same(ours.read_tensor(ours.Tensor.FromString(listed(array).SerializeToString())), array)


@EVERY_DTYPE
@EVERY_SHAPE
def test_official_content_is_read_by_ours(dtype: str, shape: tuple[int, ...]) -> None:
    array = values(dtype, shape)
    assert same(ours.read_tensor(ours.Tensor.FromString(tf.make_tensor_proto(array).SerializeToString())), array)


@EVERY_DTYPE
def test_a_value_that_goes_on_to_the_end_is_read_as_the_official_reader_does(dtype: str) -> None:
    short = listed(values(dtype, (4,)))
    short.tensor_shape.dim[0].size = 9
    array = ours.read_tensor(ours.Tensor.FromString(short.SerializeToString()))
    assert same(array, tf.make_ndarray(short))


def test_a_request_of_ours_is_the_official_one_byte_by_byte() -> None:
    image = values("uint8", (1, 4, 4, 3))
    request, official = ours.PredictRequest(output_filter=["boxes"]), predict_pb2.PredictRequest()
    official.output_filter.append("boxes")
    for each in (request, official):
        each.model_spec.name, each.model_spec.signature_name = "m", "s"
        each.model_spec.version.value = 7
        ours.write_tensor(image, each.inputs["image"])
    assert request.SerializeToString(deterministic=True) == official.SerializeToString(deterministic=True)
    assert predict_pb2.PredictRequest.FromString(request.SerializeToString()) == official


def test_an_official_reply_is_read_by_ours() -> None:
    official = predict_pb2.PredictResponse()
    official.model_spec.version.value = 7
    official.outputs["scores"].CopyFrom(listed(values("float32", (2, 3))))
    reply = ours.PredictResponse.FromString(official.SerializeToString())
    assert reply.model_spec.version.value == 7
    assert same(ours.read_tensor(reply.outputs["scores"]), values("float32", (2, 3)))


def test_an_official_status_is_read_by_ours() -> None:
    official = get_model_status_pb2.GetModelStatusResponse()
    official.model_version_status.add(version=3, state=get_model_status_pb2.ModelVersionStatus.LOADING)
    (version,) = ours.GetModelStatusResponse.FromString(official.SerializeToString()).model_version_status
    assert (version.version, version.state) == (3, 20)


def test_official_metadata_is_read_by_ours() -> None:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    image = signatures.signature_def["serving_default"].inputs["image"]
    image.dtype = tf.uint8.as_datatype_enum
    for side in (1, -1, 3):
        image.tensor_shape.dim.add(size=side)
    signatures.signature_def["serving_default"].outputs["all"].tensor_shape.unknown_rank = True
    official = get_model_metadata_pb2.GetModelMetadataResponse()
    official.metadata["signature_def"].Pack(signatures)
    reply = ours.GetModelMetadataResponse.FromString(official.SerializeToString())
    signature = ours.SignatureDefMap.FromString(reply.metadata["signature_def"].value).signature_def["serving_default"]
    assert ours.found(signature.inputs) == (Found("image", "uint8", (1, None, 3)),)
    assert ours.found(signature.outputs) == (Found("all", "no dtype", None),)
