"""Triton, or any other server of the Open Inference Protocol, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shared.backends.declared import check_outputs
from shared.errors import ServerFailed
from shared.open_inference import Tensor, flat
from shared.open_inference_http import OpenInferenceHttp, ServedNetwork
from shared.server_http import ServerHttp

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.call import Call
    from shared.manifest import NetworkSpec
    from shared.settings import Settings
    from shared.tensors import Tensors


class TritonBackend:
    """A Backend (see shared.backends): one model server, whose connections all networks share."""

    def __init__(self, settings: Settings) -> None:
        self._server = OpenInferenceHttp(ServerHttp.of(settings))

    def open(self, network: NetworkSpec) -> TritonRun:
        return TritonRun(self._server.open(network), network)


class TritonRun:
    """A Run (see shared.backends): one network on the server."""

    def __init__(self, served: ServedNetwork, network: NetworkSpec) -> None:
        self._served = served
        self._network = network

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        sent = [Tensor(name, array.dtype.name, array.shape, as_bytes(array)) for name, array in inputs.items()]
        tensors = self._served.infer(sent, call)
        declared = (tensors[spec.name] for spec in self._network.outputs if spec.name in tensors)
        return check_outputs(self._network, {tensor.name: as_array(tensor) for tensor in declared})

    def ready(self) -> bool:
        return self._served.ready()

    def close(self) -> None:
        self._served.close()


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """The array's own memory, row-major."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def as_array(tensor: Tensor) -> npt.NDArray[Any]:
    """The tensor as an array of its dtype and shape, over the bytes that came where they lie well. Raises
    ServerFailed."""
    data = tensor.data
    try:
        if isinstance(data, list):
            # null is how JSON writes what is no number
            return np.array(flat(tensor), dtype=tensor.dtype).reshape(tensor.shape)
        array = np.frombuffer(data, tensor.dtype).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise ServerFailed(f"output {tensor.name!r} of the model server cannot be read") from error
    # Arithmetic is slow on values that lie across word boundaries.
    return array if array.flags.aligned else array.copy()
