"""Pictures as they came, answered inside Triton's Python backend by the same code as in a process of our own.

`shared`, the bundle's model.json and those of its parts lie beside this file; the networks are models of the same
server, called by it.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

from model_server.triton.python.numpy_check import check_numpy
from shared.errors import OutOfMemory, ServerBusy, WrongAnswer
from shared.forwarded import Forwarded
from shared.host import return_large_buffers
from shared.manifest import read_bundle
from shared.open_inference_http import is_out_of_memory

if TYPE_CHECKING:
    from shared.call import Call
    from shared.manifest import NetworkSpec
    from shared.tensors import Tensors

_RUN = "run."
_log = logging.getLogger("thinlens")


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        check_numpy()
        return_large_buffers()
        folder = Path(args["model_repository"]) / args["model_version"] / "bundles" / args["model_name"]
        bundle = read_bundle(folder)
        told = json.loads(args["model_config"])["parameters"]
        runs = {
            key.removeprefix(_RUN): ServedRun(value["string_value"], bundle.network(key.removeprefix(_RUN)))
            for key, value in told.items()
            if key.startswith(_RUN)
        }
        self._forwarded = Forwarded(folder, runs)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            answer, drawn = self._forwarded.answer(_bytes(request, "request"), _bytes(request, "picture"))
        except Exception:  # noqa: BLE001 - one request's failure is not the others'
            _log.exception("a forwarded picture failed")
            error = pb_utils.TritonError("internal_error: the model failed; the log of the model server tells more")
            return pb_utils.InferenceResponse([], error)
        return pb_utils.InferenceResponse([_tensor("answer", answer), _tensor("drawn", drawn)])


class ServedRun:
    """A Run (see shared.backends): a model of this server, called inside it."""

    def __init__(self, name: str, network: NetworkSpec) -> None:
        self._name = name
        self._outputs = [spec.name for spec in network.outputs]

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        call.check()
        response = pb_utils.InferenceRequest(
            model_name=self._name,
            request_id=call.request_id,
            requested_output_names=self._outputs,
            inputs=[pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in inputs.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
        ).exec()
        call.check()
        if response.has_error():
            raise self._failure(response.error(), call)
        return {name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in self._outputs}

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def _failure(self, error: Any, call: Call) -> OutOfMemory | ServerBusy | WrongAnswer:
        message = error.message()
        _log.warning("%s failed on %s: %s", self._name, call.request_id, message)
        if is_out_of_memory(message):
            return OutOfMemory("there is not enough memory to run the model on this picture")
        # A model that is being loaded, or has been taken away, is told in words only.
        if error.code() == pb_utils.TritonError.UNAVAILABLE or "is not ready" in message:
            return ServerBusy("a network of the model is not ready on the model server", retry_after_s=1)
        return WrongAnswer("the model failed on this picture; the log tells more under the request id")


def _bytes(request: Any, name: str) -> bytes:
    data: bytes = pb_utils.get_input_tensor_by_name(request, name).as_numpy().tobytes()
    return data


def _tensor(name: str, data: bytes) -> Any:
    return pb_utils.Tensor(name, np.frombuffer(data, np.uint8))
