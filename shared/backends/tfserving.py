"""TensorFlow Serving by its REST interface, which speaks JSON only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from shared.backends import tfserving_json
from shared.backends.declared import Found, check_outputs
from shared.backends.tfserving_model import (
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
from shared.errors import SERVER_FAILURES, ConfigurationError, OutOfMemory, ServerBusy, ServerTimeout
from shared.open_inference_http import no_entry
from shared.retries import OPEN_LIMIT_S, READY_LIMIT_S
from shared.server_http import Reply, ServerHttp, retry_after_s

if TYPE_CHECKING:
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Tensors

_JSON = {"Content-Type": "application/json"}
_OK, _NOT_FOUND, _TOO_MANY, _TOO_LATE = 200, 404, 429, 504
_DTYPES = {
    "DT_BOOL": "bool",
    "DT_UINT8": "uint8",
    "DT_INT8": "int8",
    "DT_INT32": "int32",
    "DT_INT64": "int64",
    "DT_HALF": "float16",
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float64",
}


class _Version(msgspec.Struct, frozen=True):
    state: str


class _Status(msgspec.Struct, frozen=True):
    model_version_status: tuple[_Version, ...]


class _Dim(msgspec.Struct, frozen=True):
    size: int


class _Shape(msgspec.Struct, frozen=True):
    dim: tuple[_Dim, ...] = ()
    unknown_rank: bool = False


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    tensor_shape: _Shape = _Shape()


class _Signature(msgspec.Struct, frozen=True):
    inputs: dict[str, _Tensor] = {}
    outputs: dict[str, _Tensor] = {}


class _Signatures(msgspec.Struct, frozen=True):
    signature_def: dict[str, _Signature]


class _Fields(msgspec.Struct, frozen=True):
    signature_def: _Signatures


class _Metadata(msgspec.Struct, frozen=True):
    metadata: _Fields


class TfServingBackend:
    """A Backend (see shared.backends) on a model server."""

    def __init__(self, settings: Settings) -> None:
        self._http = ServerHttp.of(settings)

    def open(self, network: NetworkSpec) -> TfServingRun:
        """The network as the server has it, in the latest version that is loaded there."""
        _check_dtypes(network)
        path = f"/v1/models/{quote(network.served_as)}"
        _check_served(self._http, path, network, Call("open", OPEN_LIMIT_S))
        return TfServingRun(self._http, network, path)


class TfServingRun:
    """A Run (see shared.backends): a model on the server, which many threads may ask at once."""

    def __init__(self, http: ServerHttp, network: NetworkSpec, path: str) -> None:
        self._http = http
        self._network = network
        self._path = path
        self._head = b'{"signature_name":%s,"inputs":{' % msgspec.json.encode(signature_name(network))

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        body = self._body(inputs)
        reply = self._http.request("POST", f"{self._path}:predict", call, headers=_JSON, body=body)
        if reply.status != _OK:
            self._refuse(reply, call)
        try:
            return check_outputs(self._network, self._outputs(reply))
        except (ValueError, RecursionError) as error:
            raise unreadable(self._network, error, call) from error

    def ready(self) -> bool:
        try:
            _check_served(self._http, self._path, self._network, Call("ready", READY_LIMIT_S))
        except (*SERVER_FAILURES, ConfigurationError):
            return False
        return True

    def close(self) -> None:
        self._http.close()

    def _body(self, inputs: Tensors) -> list[bytes | memoryview]:
        body: list[bytes | memoryview] = []
        for name, array in inputs.items():
            body += [b"," if body else self._head, msgspec.json.encode(name), b":", tfserving_json.write(array)]
        return [*body, b"}}"]

    def _outputs(self, reply: Reply) -> Tensors:
        """The declared outputs that came; one alone comes without its name."""
        decoded = tfserving_json.decode(reply.body)
        if not isinstance(decoded, dict) or "outputs" not in decoded:
            raise ValueError("there are no outputs in it")
        outputs, specs = decoded["outputs"], self._network.outputs
        by_name: Mapping[str, Any] = outputs if isinstance(outputs, dict) else {specs[0].name: outputs}
        return {spec.name: tfserving_json.read(by_name[spec.name], spec) for spec in specs if spec.name in by_name}

    def _refuse(self, reply: Reply, call: Call) -> None:
        """Raises what a reply that is none means; a status is a number of TensorFlow's own error codes, see
        ToHTTPStatusCode in tensorflow_serving/model_servers/http_server.cc."""
        failure = failed(self._network, f"status {reply.status}: {_words(reply)}", call)
        if isinstance(failure, OutOfMemory):
            raise failure
        if reply.status == _NOT_FOUND:
            raise away(self._network)
        if reply.status == _TOO_MANY:
            raise ServerBusy("the model server is too busy to answer", retry_after_s=retry_after_s(reply))
        if reply.status == _TOO_LATE:
            raise ServerTimeout("the model server did not finish in the time that it gives itself")
        raise failure


def _check_served(http: ServerHttp, path: str, network: NetworkSpec, call: Call) -> None:
    check_states(network, _states(_asked(http, path, network, call), network, call))
    check_signature(network, _signatures(_asked(http, f"{path}/metadata", network, call), network, call))


def _asked(http: ServerHttp, path: str, network: NetworkSpec, call: Call) -> Reply:
    reply = http.request("GET", path, call)
    if reply.status == _NOT_FOUND:
        raise no_model(network)
    if reply.status in (401, 403):
        raise no_entry()
    if reply.status != _OK:
        raise untold(network, f"status {reply.status}: {_words(reply)}", call)
    return reply


def _check_dtypes(network: NetworkSpec) -> None:
    for spec in network.inputs:
        if spec.dtype == "float16":
            raise ConfigurationError(
                f"{network.field}.inputs: {spec.name!r} is float16, which TensorFlow Serving's REST interface does not "
                f"take; choose THINLENS_BACKEND_PROTOCOL=grpc"
            )


def _states(reply: Reply, network: NetworkSpec, call: Call) -> list[str]:
    try:
        status = msgspec.json.decode(reply.body, type=_Status)
    except ValueError as error:
        raise unreadable(network, error, call) from error
    return [version.state for version in status.model_version_status]


def _signatures(reply: Reply, network: NetworkSpec, call: Call) -> dict[str, Signature]:
    """The signatures of a reply that writes 64-bit numbers as text."""
    try:
        metadata = msgspec.json.decode(reply.body, type=_Metadata, strict=False)
    except ValueError as error:
        raise unreadable(network, error, call) from error
    signatures = metadata.metadata.signature_def.signature_def
    return {name: Signature(_found(one.inputs), _found(one.outputs)) for name, one in signatures.items()}


def _found(tensors: Mapping[str, _Tensor]) -> tuple[Found, ...]:
    return tuple(
        Found(name, _DTYPES.get(tensor.dtype, tensor.dtype), _shape(tensor.tensor_shape))
        for name, tensor in sorted(tensors.items())
    )


def _shape(shape: _Shape) -> tuple[int | None, ...] | None:
    return None if shape.unknown_rank else tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)


def _words(reply: Reply) -> str:
    """What the server says of its error, or the beginning of what it sent instead."""
    return reply.body[:1000].decode("utf-8", "replace")
