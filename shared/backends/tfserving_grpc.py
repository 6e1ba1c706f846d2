"""TensorFlow Serving by gRPC, with tensors as the bytes that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from shared.backends import tfserving_messages as messages
from shared.backends.declared import check_outputs
from shared.backends.grpc_server import NO_ENTRY, GrpcServer, words
from shared.backends.tfserving_model import (
    AVAILABLE,
    Signature,
    away,
    check_signature,
    check_states,
    failed,
    no_model,
    signature_name,
    unreadable,
    untold,
)
from shared.call import Call
from shared.errors import SERVER_FAILURES, ConfigurationError, OutOfMemory, ServerBusy
from shared.open_inference_http import no_entry
from shared.retries import OPEN_LIMIT_S, READY_LIMIT_S

if TYPE_CHECKING:
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Tensors

_STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: AVAILABLE, 40: "UNLOADING", 50: "END"}
_SIGNATURES = "signature_def"


class _Stub:
    """The methods of TensorFlow Serving that are asked, on one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        def method(path: str, written: Any, read: Any) -> Any:
            place = f"/tensorflow.serving.{path}"
            return channel.unary_unary(place, written.SerializeToString, read.FromString)

        self.predict = method("PredictionService/Predict", messages.PredictRequest, messages.PredictResponse)
        self.metadata = method(
            "PredictionService/GetModelMetadata", messages.GetModelMetadataRequest, messages.GetModelMetadataResponse
        )
        self.status = method(
            "ModelService/GetModelStatus", messages.GetModelStatusRequest, messages.GetModelStatusResponse
        )


class TfServingGrpcBackend:
    """A Backend (see shared.backends) on a model server."""

    def __init__(self, settings: Settings) -> None:
        self._server = GrpcServer.of(settings, _Stub)

    def open(self, network: NetworkSpec) -> TfServingGrpcRun:
        """The network as the server has it, in the latest version that is loaded there."""
        _check_served(self._server, network, Call("open", OPEN_LIMIT_S))
        return TfServingGrpcRun(self._server, network)


class TfServingGrpcRun:
    """A Run (see shared.backends): a model on the server, which many threads may ask at once."""

    def __init__(self, server: GrpcServer, network: NetworkSpec) -> None:
        self._server = server
        self._network = network
        self._signature = signature_name(network)

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        try:
            reply = self._server.ask("predict", self._request(inputs), call)
            outputs = {name: messages.read_tensor(tensor) for name, tensor in reply.outputs.items()}
        except grpc.RpcError as error:
            raise _refused(self._network, error, call) from error
        except ValueError as error:
            raise unreadable(self._network, error, call) from error
        return check_outputs(self._network, outputs)

    def ready(self) -> bool:
        try:
            _check_served(self._server, self._network, Call("ready", READY_LIMIT_S))
        except (*SERVER_FAILURES, ConfigurationError):
            return False
        return True

    def close(self) -> None:
        """Nothing is this network's alone."""

    def _request(self, inputs: Tensors) -> Any:
        request = messages.PredictRequest(output_filter=[spec.name for spec in self._network.outputs])
        request.model_spec.name = self._network.served_as
        request.model_spec.signature_name = self._signature
        for name, array in inputs.items():
            messages.write_tensor(array, request.inputs[name])
        return request


def _check_served(server: GrpcServer, network: NetworkSpec, call: Call) -> None:
    try:
        check_states(network, _states(server, network, call))
        check_signature(network, _signatures(server, network, call))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise no_model(network) from error
        if error.code() in NO_ENTRY:
            raise no_entry() from error
        raise untold(network, words(error), call) from error


def _states(server: GrpcServer, network: NetworkSpec, call: Call) -> list[str]:
    request = messages.GetModelStatusRequest()
    request.model_spec.name = network.served_as
    reply = server.ask("status", request, call)
    return [_STATES.get(version.state, "UNKNOWN") for version in reply.model_version_status]


def _signatures(server: GrpcServer, network: NetworkSpec, call: Call) -> dict[str, Signature]:
    request = messages.GetModelMetadataRequest(metadata_field=[_SIGNATURES])
    request.model_spec.name = network.served_as
    reply = server.ask("metadata", request, call)
    try:
        signatures = messages.SignatureDefMap.FromString(reply.metadata[_SIGNATURES].value).signature_def
    except messages.MalformedMessage as error:
        raise unreadable(network, error, call) from error
    return {
        name: Signature(messages.found(signature.inputs), messages.found(signature.outputs))
        for name, signature in signatures.items()
    }


def _refused(network: NetworkSpec, error: grpc.RpcError, call: Call) -> Exception:
    """What a status other than OK means; the codes are those of TensorFlow's own errors."""
    failure = failed(network, words(error), call)
    if isinstance(failure, OutOfMemory):
        return failure
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return away(network)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ServerBusy("the model server is too busy to answer")
    return failure
