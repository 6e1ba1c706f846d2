"""TensorFlow Serving by gRPC, with tensors as the bytes that they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any

import grpc

from shared.backends import tfserving_messages as messages
from shared.backends.declared import check_outputs
from shared.backends.tfserving_model import (
    AVAILABLE,
    READY_S,
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
from shared.errors import (
    SERVER_FAILURES,
    ConfigurationError,
    OutOfMemory,
    ServerBusy,
    ServerUnreachable,
)
from shared.retries import TimeLimit, asked_again
from shared.server_connections import CONNECT_LIMIT_S, Place

if TYPE_CHECKING:
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Tensors

_PREDICT = ("/tensorflow.serving.PredictionService/Predict", messages.PredictRequest, messages.PredictResponse)
_METADATA = (
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    messages.GetModelMetadataRequest,
    messages.GetModelMetadataResponse,
)
_STATUS = (
    "/tensorflow.serving.ModelService/GetModelStatus",
    messages.GetModelStatusRequest,
    messages.GetModelStatusResponse,
)
_STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: AVAILABLE, 40: "UNLOADING", 50: "END"}
_SIGNATURES = "signature_def"
_RECONNECT_MS = 1000
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Left alone, gRPC takes up to twenty seconds for one attempt to connect and waits up to two minutes for the next.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_LIMIT_S * 1000)),
    # Ours are counted against the request's time and the setting, and know no proxy of the environment's.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)
_QUEUE_FULL = "queue"  # of the server's batching: "The batch scheduling queue to which this task was submitted is full"


class _Channel:
    """The server, by one channel for each process: a channel does not outlive a fork."""

    def __init__(self, settings: Settings) -> None:
        assert settings.backend_url is not None, "checked with the settings"
        place = Place.of(settings.backend_url)
        if place.prefix:
            raise ConfigurationError(f"THINLENS_BACKEND_URL: expected no path for gRPC, found {place.prefix!r}")
        token = settings.backend_token
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ConfigurationError("THINLENS_BACKEND_TOKEN: expected printable ASCII characters, found others")
        self._secure = place.secure
        self._target = place.authority
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._retries = settings.retries
        self._limit_s = settings.backend_timeout_s
        self._lock = Lock()
        self._made: tuple[int, grpc.Channel] | None = None

    def ask(self, method: tuple[str, Any, Any], request: Any, call: Call, *, retries: int | None = None) -> Any:
        """The server's reply. Raises grpc.RpcError for what the server says itself, ServerUnreachable, ServerBusy and
        ServerTimeout for the rest."""
        path, written, read = method
        time = TimeLimit(call, self._limit_s)
        send = self._channel().unary_unary(path, written.SerializeToString, read.FromString)
        times = self._retries if retries is None else retries
        return asked_again(lambda: self._once(send, request, time), times, time)

    def close(self) -> None:
        made = self._made
        if made is not None and made[0] == os.getpid():
            made[1].close()

    def _once(self, send: Callable[..., Any], request: Any, time: TimeLimit) -> Any:
        try:
            return send(request, timeout=time.remaining_s(), metadata=self._metadata)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise time.over() from error
            if code is grpc.StatusCode.UNAVAILABLE and _QUEUE_FULL in (error.details() or ""):
                raise ServerBusy("the model server is too busy to answer") from error
            if code is grpc.StatusCode.UNAVAILABLE:  # by gRPC's own account, the one to ask again after
                raise ServerUnreachable("the model server cannot be reached") from error
            raise

    def _channel(self) -> grpc.Channel:
        made = self._made
        if made is not None and made[0] == os.getpid():
            return made[1]
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), self._connected()
            return self._made[1]

    def _connected(self) -> grpc.Channel:
        if self._secure:
            from shared.trust import authorities_pem  # reading certificates is for those who need them

            return grpc.secure_channel(self._target, grpc.ssl_channel_credentials(authorities_pem()), _OPTIONS)
        return grpc.insecure_channel(self._target, _OPTIONS)


class TfServingGrpcBackend:
    """A Backend (see shared.backends) on a model server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def open(self, network: NetworkSpec) -> TfServingGrpcRun:
        """The network as the server has it, in the latest version that is loaded there."""
        channel = _Channel(self._settings)
        try:
            _check_served(channel, network, Call("open", self._settings.backend_timeout_s))
        except BaseException:
            channel.close()
            raise
        return TfServingGrpcRun(channel, network)


class TfServingGrpcRun:
    """A Run (see shared.backends): a model on the server, which many threads may ask at once."""

    def __init__(self, channel: _Channel, network: NetworkSpec) -> None:
        self._channel = channel
        self._network = network
        self._signature = signature_name(network)

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        try:
            reply = self._channel.ask(_PREDICT, self._request(inputs), call)
            outputs = {name: messages.read_tensor(tensor) for name, tensor in reply.outputs.items()}
        except grpc.RpcError as error:
            raise _refused(self._network, error, call) from error
        except ValueError as error:
            raise unreadable(self._network, error, call) from error
        return check_outputs(self._network, outputs)

    def ready(self) -> bool:
        try:
            return AVAILABLE in _states(self._channel, self._network, Call("ready", READY_S), retries=0)
        except (*SERVER_FAILURES, grpc.RpcError):
            return False

    def close(self) -> None:
        self._channel.close()

    def _request(self, inputs: Tensors) -> Any:
        request = messages.PredictRequest(output_filter=[spec.name for spec in self._network.outputs])
        request.model_spec.name = self._network.served_as
        request.model_spec.signature_name = self._signature
        for name, array in inputs.items():
            messages.write_tensor(array, request.inputs[name])
        return request


def _check_served(channel: _Channel, network: NetworkSpec, call: Call) -> None:
    try:
        check_states(network, _states(channel, network, call))
        check_signature(network, _signatures(channel, network, call))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise no_model(network) from error
        raise untold(network, _words(error), call) from error


def _states(channel: _Channel, network: NetworkSpec, call: Call, *, retries: int | None = None) -> list[str]:
    request = messages.GetModelStatusRequest()
    request.model_spec.name = network.served_as
    reply = channel.ask(_STATUS, request, call, retries=retries)
    return [_STATES.get(version.state, "UNKNOWN") for version in reply.model_version_status]


def _signatures(channel: _Channel, network: NetworkSpec, call: Call) -> dict[str, Signature]:
    request = messages.GetModelMetadataRequest(metadata_field=[_SIGNATURES])
    request.model_spec.name = network.served_as
    reply = channel.ask(_METADATA, request, call)
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
    failure = failed(network, _words(error), call)
    if isinstance(failure, OutOfMemory):
        return failure
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return away(network)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ServerBusy("the model server is too busy to answer")
    return failure


def _words(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}"
