"""Triton, or any other server of the Open Inference Protocol, over gRPC."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs

from shared.backends.declared import check_outputs
from shared.backends.grpc_server import NO_ENTRY, GrpcServer, words
from shared.backends.triton import as_array, as_bytes
from shared.call import Call
from shared.errors import SERVER_FAILURES, ConfigurationError, Failure, ServerBusy, ServerFailed
from shared.open_inference import DATATYPES, ModelMetadata, Tensor, check_served, check_size, dtype_of, found
from shared.open_inference_http import (
    is_out_of_memory,
    missing,
    no_entry,
    not_ready,
    out_of_memory,
)
from shared.retries import OPEN_LIMIT_S, READY_LIMIT_S, RETRY_AFTER_S

if TYPE_CHECKING:
    from shared.manifest import NetworkSpec
    from shared.server_connections import Piece
    from shared.settings import Settings
    from shared.tensors import Tensors

_MISSING = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
_VALUES = {
    "bool": "bool_contents",
    "uint8": "uint_contents",
    "int8": "int_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
}
"""Where a reply has its values that does not have them as bytes."""
_log = logging.getLogger("thinlens")


class TritonGrpcBackend:
    """A Backend (see shared.backends): one model server, whose channel all networks share."""

    def __init__(self, settings: Settings) -> None:
        self._server = GrpcServer.of(settings, _Stub)

    def open(self, network: NetworkSpec) -> TritonGrpcRun:
        """As OpenInferenceHttp.open does."""
        call = Call("open", OPEN_LIMIT_S)
        try:
            check_served(network, _metadata(self._server, network, call))
            if not _model_ready(self._server, network, call):
                raise not_ready(network)
        except grpc.RpcError as error:
            if error.code() in NO_ENTRY:
                raise no_entry() from error
            raise _failed(network, error, call) from error
        return TritonGrpcRun(self._server, network)


class TritonGrpcRun:
    """A Run (see shared.backends): one network on the server."""

    def __init__(self, server: GrpcServer, network: NetworkSpec) -> None:
        self._server = server
        self._network = network
        self._outputs = [
            messages.ModelInferRequest.InferRequestedOutputTensor(name=spec.name) for spec in network.outputs
        ]

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        request = self._request(inputs, call)
        try:
            reply = self._server.ask("ModelInfer", request, call)
            tensors = _tensors(reply, call.request_id)
        except grpc.RpcError as error:
            raise _failed(self._network, error, call) from error
        except SERVER_FAILURES as failure:
            _warn(self._network, f"{failure.message} {failure.__cause__ or ''}", call)
            raise
        declared = (tensors[spec.name] for spec in self._network.outputs if spec.name in tensors)
        return check_outputs(self._network, {tensor.name: as_array(tensor) for tensor in declared})

    def ready(self) -> bool:
        try:
            call = Call("ready", READY_LIMIT_S)
            check_served(self._network, _metadata(self._server, self._network, call))
            return _model_ready(self._server, self._network, call, retries=0)
        except (Failure, ConfigurationError, grpc.RpcError):
            return False

    def close(self) -> None:
        """The channel is the backend's."""

    def _request(self, inputs: Tensors, call: Call) -> list[Piece]:
        """A ModelInferRequest in pieces: all but the tensors, and each tensor where it lies."""
        head = messages.ModelInferRequest(model_name=self._network.served_as, id=call.request_id, outputs=self._outputs)
        tensors: list[Piece] = []
        for name, array in inputs.items():
            head.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
            data = as_bytes(array)
            tensors += [_RAW_INPUT + _varint(len(data)), data]
        return [head.SerializeToString(), *tensors]


class _Stub(stubs.GRPCInferenceServiceStub):  # type: ignore[misc]
    """The generated stub, but that an inference is copied once, not three times: into the message, and on as it is
    written. Protocol Buffers lets the fields of a message come one after the other."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(channel)
        self.ModelInfer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=b"".join,
            response_deserializer=messages.ModelInferResponse.FromString,
        )


def _varint(number: int) -> bytes:
    """As https://protobuf.dev/programming-guides/encoding/ has it: seven bits a byte, the lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


_LENGTH_DELIMITED = 2
_RAW_INPUT = _varint(
    messages.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | _LENGTH_DELIMITED
)


def _metadata(server: GrpcServer, network: NetworkSpec, call: Call) -> ModelMetadata:
    request = messages.ModelMetadataRequest(name=network.served_as)
    try:
        reply = server.ask("ModelMetadata", request, call)
    except grpc.RpcError as error:
        if error.code() not in _MISSING:
            raise
        if not server.ask("ServerReady", messages.ServerReadyRequest(), call).ready:
            raise not_ready(network) from error
        raise missing(network, error.details() or "") from error
    return ModelMetadata(*(_found(tensors) for tensors in (reply.inputs, reply.outputs)))


def _model_ready(server: GrpcServer, network: NetworkSpec, call: Call, *, retries: int | None = None) -> bool:
    request = messages.ModelReadyRequest(name=network.served_as)
    reply = server.ask("ModelReady", request, call, retries=retries)
    return bool(reply.ready)


def _found(tensors: Sequence[Any]) -> Any:
    # A server that was not told what a model takes says that it takes nothing.
    return tuple(found(each.name, each.datatype, list(each.shape)) for each in tensors) or None


def _tensors(reply: Any, request_id: str) -> dict[str, Tensor]:
    """The tensors of a reply, by name. Raises ServerFailed where it is malformed, or answers another request."""
    if reply.id and reply.id != request_id:
        raise ServerFailed("the model server answered another request")
    raw = list(reply.raw_output_contents)
    if raw and len(raw) != len(reply.outputs):
        raise ServerFailed("the model server's answer cannot be read: tensors without names")
    tensors = {}
    for number, output in enumerate(reply.outputs):
        dtype, shape = dtype_of(output.datatype), tuple(output.shape)
        if any(axis < 0 for axis in shape):
            raise ServerFailed(f"the model server's answer cannot be read: no shape of output {output.name!r}")
        data = raw[number] if raw else list(getattr(output.contents, _VALUES.get(dtype, "bytes_contents")))
        if raw:
            check_size(output.name, dtype, shape, len(raw[number]))
        tensors[output.name] = Tensor(output.name, dtype, shape, data)
    return tensors


def _failed(network: NetworkSpec, error: grpc.RpcError, call: Call) -> Failure:
    """What a status other than OK means."""
    _warn(network, f"the model server answered {words(error)[:500]}", call)
    if is_out_of_memory(words(error)):
        return out_of_memory()
    if error.code() is grpc.StatusCode.NOT_FOUND:  # it was there when it was opened
        return ServerBusy("the model server does not have the model ready", retry_after_s=RETRY_AFTER_S)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ServerBusy("the model server has too much to do", retry_after_s=RETRY_AFTER_S)
    return ServerFailed("the model server failed; the log tells more under the request id")


def _warn(network: NetworkSpec, what: str, call: Call) -> None:
    _log.warning("%s: %s", network.field, what, extra={"fields": {"request_id": call.request_id}})
