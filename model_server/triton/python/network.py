"""A network inside Triton's Python backend, run by the same code as in a process that runs its models itself.

`shared` and the bundle lie beside this file; config.pbtxt says which network of the bundle it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

from model_server.triton.python.numpy_check import check_numpy
from shared.backends import connect
from shared.call import Call
from shared.errors import Failure, WrongAnswer
from shared.host import cores
from shared.manifest import read_bundle
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.tensors import Tensors

_LONGEST_S = 3600.0  # who asks has a limit of its own
_log = logging.getLogger("thinlens")


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        check_numpy()
        config = json.loads(args["model_config"])
        told = {key: value["string_value"] for key, value in config["parameters"].items()}
        bundle = read_bundle(Path(args["model_repository"]) / args["model_version"] / "bundle")
        self._network = bundle.network(told["network"])
        self._batches = config["max_batch_size"] > 0
        settings = Settings(threads=_threads(config), device=_device(args), models=str(bundle.folder))
        self._run = connect(told["framework"], settings).open(self._network)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Requests that came together are run as one, and each by itself where that fails."""
        if len(requests) > 1 and self._batches:
            try:
                return self._answer_together(requests)
            except Exception:  # noqa: BLE001 - one of them may be to blame, whatever went wrong
                _log.warning("%d requests failed together; each is tried by itself", len(requests), exc_info=True)
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        self._run.close()

    def _inputs(self, request: Any) -> Tensors:
        return {
            spec.name: pb_utils.get_input_tensor_by_name(request, spec.name).as_numpy() for spec in self._network.inputs
        }

    def _answer_together(self, requests: Sequence[Any]) -> list[Any]:
        given = [self._inputs(request) for request in requests]
        return [_response(outputs) for outputs in self._together(given, _call(requests[0]))]

    def _answer(self, request: Any) -> Any:
        try:
            return _response(self._run(self._inputs(request), _call(request)))
        except Failure as failure:
            return _failed(f"{failure.code}: {failure.message}")
        except Exception:  # noqa: BLE001 - one request's failure is not the others'
            _log.exception("a request failed")
            return _failed("internal_error: the model failed; the log of the model server tells more")

    def _together(self, given: Sequence[Tensors], call: Call) -> list[Tensors]:
        """The outputs of each, from one run on all of them along axis 0."""
        names = [spec.name for spec in self._network.inputs]
        counts = [len(inputs[names[0]]) for inputs in given]
        outputs = self._run({name: np.concatenate([inputs[name] for inputs in given]) for name in names}, call)
        if any(len(array) != sum(counts) for array in outputs.values()):
            raise WrongAnswer("axis 0 of the outputs is not that of the inputs")
        ends = np.cumsum(counts)[:-1]
        parts = {name: np.split(array, ends) for name, array in outputs.items()}
        return [{name: arrays[index] for name, arrays in parts.items()} for index in range(len(given))]


def _call(request: Any) -> Call:
    return Call(request.request_id(), _LONGEST_S)


def _response(outputs: Tensors) -> Any:
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()]
    )


def _failed(message: str) -> Any:
    return pb_utils.InferenceResponse([], pb_utils.TritonError(message))


def _threads(config: dict[str, Any]) -> int:
    """The cores of this machine, shared among the instances."""
    instances: int = sum(group["count"] for group in config["instance_group"])
    return max(1, cores() // max(1, instances))


def _device(args: dict[str, str]) -> str:
    return f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"
