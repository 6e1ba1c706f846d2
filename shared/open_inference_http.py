"""A server of the Open Inference Protocol, asked over HTTP. Knows no numpy: tensors go and come as bytes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.call import Call
from shared.errors import (
    SERVER_FAILURES,
    ConfigurationError,
    Failure,
    OutOfMemory,
    ServerBusy,
    ServerFailed,
    ServerTimeout,
)
from shared.open_inference import (
    Tensor,
    check_served,
    inference_reply,
    inference_request,
    model_metadata,
    speaks_binary,
    words,
)
from shared.retries import OPEN_LIMIT_S, READY_LIMIT_S, RETRY_AFTER_S
from shared.server_http import retry_after_s

if TYPE_CHECKING:
    from shared.manifest import NetworkSpec
    from shared.server_http import Reply, ServerHttp

_NOT_UNDERSTOOD = (400, 415, 422, 500)
_NO_MEMORY = ("out of memory", "out_of_memory", "failed to allocate", "bad_alloc", "oom when allocating")
_log = logging.getLogger("thinlens")


class OpenInferenceHttp:
    """What opens models on one server."""

    def __init__(self, http: ServerHttp) -> None:
        self._http = http

    def open(self, network: NetworkSpec) -> ServedNetwork:
        """The network on the server, once it has been found ready and what model.json declares.

        Raises ConfigurationError where the server has no such model, another one, or does not let us in; ServerBusy
        where the model is not ready; ServerUnreachable, ServerTimeout, ServerFailed where the server does not tell.
        """
        call = Call("open", OPEN_LIMIT_S)
        path = f"/v2/models/{network.served_as}"
        reply = self._http.request("GET", path, call)
        if reply.status in (400, 404):
            raise self._missing(network, reply, call)
        check_served(network, model_metadata(_found(reply).body))
        if self._http.request("GET", f"{path}/ready", call).status != 200:
            raise not_ready(network)
        return ServedNetwork(self._http, network, binary=self._binary(call))

    def _missing(self, network: NetworkSpec, reply: Reply, call: Call) -> Exception:
        status = self._http.request("GET", "/v2/health/ready", call).status
        if status == 404:
            return ConfigurationError("THINLENS_BACKEND_URL: no server of the Open Inference Protocol answers there")
        return missing(network, words(reply.body)) if status == 200 else not_ready(network)

    def _binary(self, call: Call) -> bool | None:
        """Whether the server takes tensors as bytes; None where it does not say that it does: some do all the same."""
        reply = self._http.request("GET", "/v2", call)
        return True if reply.status == 200 and speaks_binary(reply.body) else None


class ServedNetwork:
    """One network on the server."""

    def __init__(self, http: ServerHttp, network: NetworkSpec, *, binary: bool | None) -> None:
        self._http = http
        self._network = network
        self._path = f"/v2/models/{network.served_as}"
        self._name = network.field
        self._outputs = [spec.name for spec in network.outputs]
        self._binary = binary
        self._stumbles = 0

    def infer(self, inputs: Sequence[Tensor], call: Call) -> dict[str, Tensor]:
        """The outputs that model.json declares, and any others that the server gives, by name. Raises ServerUnreachable
        and its kin, OutOfMemory, DeadlineExceeded."""
        try:
            return inference_reply(self._answer(inputs, call), call.request_id)
        except SERVER_FAILURES as failure:
            cause = failure.__cause__ or ""
            fields = {"request_id": call.request_id}
            _log.warning("%s: %s %r", self._name, failure.message, cause, extra={"fields": fields})
            raise

    def ready(self) -> bool:
        """Whether the server says that the model is ready, and still the one that model.json declares."""
        try:
            call = Call("ready", READY_LIMIT_S)
            told = _found(self._http.request("GET", self._path, call, retries=0))
            check_served(self._network, model_metadata(told.body))
            return self._http.request("GET", f"{self._path}/ready", call, retries=0).status == 200
        except (Failure, ConfigurationError):
            return False

    def close(self) -> None:
        self._http.close()

    def _answer(self, inputs: Sequence[Tensor], call: Call) -> Reply:
        if self._binary is not None:
            return self._accepted(self._ask(inputs, call, binary=self._binary), call)
        reply = self._ask(inputs, call, binary=True)
        if reply.status not in _NOT_UNDERSTOOD:
            self._accepted(reply, call)
            self._binary = True
            return reply
        self._stumbles += 1
        # 500 is what some servers say to bytes, and what every server may say once.
        certain = reply.status != 500 or self._stumbles > 1
        reply = self._accepted(self._ask(inputs, call, binary=False), call)
        if certain:
            self._binary = False
        return reply

    def _ask(self, inputs: Sequence[Tensor], call: Call, *, binary: bool) -> Reply:
        headers, body = inference_request(call.request_id, inputs, self._outputs, binary=binary)
        return self._http.request("POST", f"{self._path}/infer", call, headers=headers, body=body)

    def _accepted(self, reply: Reply, call: Call) -> Reply:
        if reply.status == 200:
            return reply
        said = words(reply.body)
        fields = {"request_id": call.request_id}
        _log.warning("%s: the model server answered %d: %s", self._name, reply.status, said, extra={"fields": fields})
        if is_out_of_memory(said):
            raise out_of_memory()
        raise _refused(reply)


def is_out_of_memory(said: str) -> bool:
    return any(phrase in said.lower() for phrase in _NO_MEMORY)


def out_of_memory() -> OutOfMemory:
    return OutOfMemory("the model server has not enough memory to run the model on this picture")


def missing(network: NetworkSpec, said: str) -> Exception:
    """What a server that is ready but does not give the model means: of one that is known and not loaded, Triton says
    that it has "no available versions"."""
    if "no available versions" in said:
        return not_ready(network)
    return ConfigurationError(f"{network.field}.served_as: the model server has no model {network.served_as!r}")


def not_ready(network: NetworkSpec) -> ServerBusy:
    return ServerBusy(f"{network.field}: not ready on the model server", retry_after_s=RETRY_AFTER_S)


def no_entry() -> ConfigurationError:
    return ConfigurationError("THINLENS_BACKEND_TOKEN: the model server does not let this service in")


def _found(reply: Reply) -> Reply:
    if reply.status in (401, 403):
        raise no_entry()
    if reply.status != 200:
        raise _refused(reply)
    return reply


def _refused(reply: Reply) -> Failure:
    if reply.status == 404:  # it was there when it was opened: taken away, or changed for another just now
        return ServerBusy("the model server does not have the model ready", retry_after_s=RETRY_AFTER_S)
    if reply.status == 429:
        return ServerBusy("the model server has too much to do", retry_after_s=retry_after_s(reply) or RETRY_AFTER_S)
    if reply.status == 504:
        return ServerTimeout("what stands before the model server got no answer from it in time")
    return ServerFailed("the model server failed; the log tells more under the request id")
