"""The models of a repository: SavedModels run by TensorFlow, asked in TensorFlow Serving's own messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

Code = grpc.StatusCode
DEFAULT_SIGNATURE = "serving_default"
# Where Serving puts the values of each dtype when it answers (Tensor::AsProtoField): never into tensor_content.
_FIELDS = {
    "float32": "float_val", "float64": "double_val", "float16": "half_val", "bool": "bool_val", "int64": "int64_val",
    "int32": "int_val", "int16": "int_val", "int8": "int_val", "uint8": "int_val",
}  # fmt: skip


class Problem(Exception):
    """An error as Serving gives it: a status code and a sentence."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Version:
    """One version of a model, loaded."""

    def __init__(self, folder: Path) -> None:
        self.number = int(folder.name)
        description = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        self.signatures = description.meta_graphs[0].signature_def
        self._loaded = tf.saved_model.load(str(folder))

    def run(self, name: str, inputs: Any, wanted: list[str]) -> dict[str, Any]:
        signature = self.signatures[name]
        _check_inputs(signature, inputs)
        unknown = [alias for alias in wanted if alias not in signature.outputs]
        if unknown:
            raise Problem(Code.INVALID_ARGUMENT, f"output tensor alias not found in signature: {unknown[0]}")
        try:
            tensors = {key: tf.constant(tf.make_ndarray(value)) for key, value in inputs.items()}
            outputs = self._loaded.signatures[name](**tensors)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise Problem(Code.INVALID_ARGUMENT, str(error).splitlines()[0]) from error
        return {key: value.numpy() for key, value in outputs.items() if not wanted or key in wanted}


class Models:
    """What `models.config` in the folder `repository` names, which is mounted where the base paths say."""

    def __init__(self, repository: Path) -> None:
        text = (repository / "models.config").read_text(encoding="utf-8")
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
        self._models = {
            model.name: {version.number: version for version in _versions(repository, model)}
            for model in config.model_config_list.config
        }

    def find(self, spec: Any) -> Version:
        """The version that a ModelSpec asks for, the latest by default."""
        versions = self._models.get(spec.name, {})
        number = spec.version.value if spec.HasField("version") else max(versions, default=0)
        if number not in versions:
            asked = f"Specific({spec.name}, {number})" if spec.HasField("version") else f"Latest({spec.name})"
            raise Problem(Code.NOT_FOUND, f"Servable not found for request: {asked}")
        return versions[number]

    def signature(self, spec: Any) -> Any:
        return self.find(spec).signatures.get(spec.signature_name or DEFAULT_SIGNATURE)

    def predict(self, request: Any) -> Any:
        version = self.find(request.model_spec)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in version.signatures:
            raise Problem(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        outputs = version.run(name, request.inputs, list(request.output_filter))
        reply = predict_pb2.PredictResponse()
        _describe(reply.model_spec, request.model_spec.name, version)
        reply.model_spec.signature_name = name
        for key, array in outputs.items():
            _write(np.asarray(array), reply.outputs[key])
        return reply

    def status(self, spec: Any) -> Any:
        versions = self._models.get(spec.name, {})
        if not versions:
            raise Problem(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        number = spec.version.value if spec.HasField("version") else None
        if number is not None and number not in versions:
            raise Problem(Code.NOT_FOUND, f"Could not find version {number} of model {spec.name}")
        reply = get_model_status_pb2.GetModelStatusResponse()
        for each in sorted(versions) if number is None else [number]:
            state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            reply.model_version_status.add(version=each, state=state).status.SetInParent()
        return reply

    def metadata(self, request: Any) -> Any:
        if list(request.metadata_field) != ["signature_def"]:
            raise Problem(Code.INVALID_ARGUMENT, f"Metadata field {list(request.metadata_field)} is not supported")
        version = self.find(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in version.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        reply = get_model_metadata_pb2.GetModelMetadataResponse()
        _describe(reply.model_spec, request.model_spec.name, version)
        reply.metadata["signature_def"].Pack(signatures)
        return reply


def _versions(repository: Path, model: Any) -> Iterator[Version]:
    folder = repository / PurePosixPath(model.base_path).name
    numbers = sorted((int(path.name) for path in folder.iterdir() if path.name.isdigit()), reverse=True)
    for number in numbers[: model.model_version_policy.latest.num_versions or 1]:
        yield Version(folder / str(number))


def _describe(spec: Any, name: str, version: Version) -> None:
    spec.name = name
    spec.version.value = version.number


def _check_inputs(signature: Any, inputs: Any) -> None:
    if set(inputs) != set(signature.inputs):
        extra, missing = set(inputs) - set(signature.inputs), set(signature.inputs) - set(inputs)
        raise Problem(
            Code.INVALID_ARGUMENT,
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
            f"Sent extra: {sorted(extra)}. Missing but required: {sorted(missing)}.",
        )
    for name, tensor in inputs.items():
        if tensor.dtype != signature.inputs[name].dtype:
            raise Problem(Code.INVALID_ARGUMENT, f"Expects arg[0] to be of another type than {name} is")


def _write(array: Any, tensor: Any) -> None:
    tensor.dtype = tf.as_dtype(array.dtype).as_datatype_enum
    for side in array.shape:
        tensor.tensor_shape.dim.add(size=side)
    values = array.view(np.uint16) if array.dtype == np.float16 else array
    getattr(tensor, _FIELDS[array.dtype.name]).extend(values.ravel().tolist())
