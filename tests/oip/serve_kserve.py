"""KServe's server on a bundle: BUNDLE SCRATCH HTTP_PORT GRPC_PORT METRICS_PORT (which it does not use)."""

from __future__ import annotations

import sys
from concurrent import futures
from pathlib import Path
from typing import Any

import kserve.model_server  # type: ignore[import-not-found, unused-ignore]
from grpc import aio
from kserve import (  # type: ignore[import-not-found, unused-ignore]
    InferOutput,
    InferRequest,
    InferResponse,
    Model,
    ModelServer,
)
from kserve.errors import InvalidInput  # type: ignore[import-not-found, unused-ignore]
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs  # type: ignore[import-not-found, unused-ignore]
from kserve.protocol.grpc.interceptors import (  # type: ignore[import-not-found, unused-ignore]
    ExceptionToStatusInterceptor,
)
from kserve.protocol.grpc.server import GRPCServer  # type: ignore[import-not-found, unused-ignore]
from kserve.protocol.grpc.servicer import InferenceServicer  # type: ignore[import-not-found, unused-ignore]
from kserve.protocol.rest.server import RESTServer  # type: ignore[import-not-found, unused-ignore]

from tests.oip.networks import Served, networks

HOST = "127.0.0.1"
_LARGEST = 256 * 1024 * 1024


class Network(Model):  # type: ignore[misc]
    def __init__(self, served: Served) -> None:
        super().__init__(served.name)
        self._served = served
        self._session = served.open()
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        return self._served.inputs

    async def get_output_types(self) -> list[dict[str, Any]]:
        return self._served.outputs

    def predict(self, payload: InferRequest, headers: object = None, response_headers: object = None) -> InferResponse:
        inputs = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        try:
            arrays = self._served.run(self._session, inputs)
        except Exception as error:
            raise InvalidInput(str(error)) from error
        binary = payload.from_grpc or getattr(payload, "use_binary_outputs", False)
        datatypes = {tensor["name"]: tensor["datatype"] for tensor in self._served.outputs}
        outputs = []
        for name, array in arrays.items():
            output = InferOutput(name, list(array.shape), datatypes[name])
            output.set_data_from_numpy(array, binary_data=binary)
            outputs.append(output)
        return InferResponse(payload.id, self.name, outputs)


class LoopbackRest(RESTServer):  # type: ignore[misc]
    """The server has no setting for its address and would listen on all of them."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.config.host = HOST


class LoopbackGrpc(GRPCServer):  # type: ignore[misc]
    """The same for gRPC."""

    async def start(self, max_workers: int) -> None:
        sizes = [(f"grpc.max_{way}_message_length", _LARGEST) for way in ("send", "receive")]
        self._server = aio.server(
            futures.ThreadPoolExecutor(max_workers), interceptors=[ExceptionToStatusInterceptor()], options=sizes
        )
        servicer = InferenceServicer(self._data_plane, self._model_repository_extension)
        stubs.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        self._server.add_insecure_port(f"{HOST}:{self._port}")
        await self._server.start()
        await self._server.wait_for_termination()


def main(bundle: str, scratch: str, http: str, grpc: str, metrics: str) -> None:
    kserve.model_server.RESTServer = LoopbackRest
    kserve.model_server.GRPCServer = LoopbackGrpc
    server = ModelServer(http_port=int(http), grpc_port=int(grpc), workers=1, grace_period=2)
    server.start([Network(served) for served in networks(Path(bundle))])


if __name__ == "__main__":
    # The server reads the command line too, on import; what it does not know it leaves alone.
    main(*sys.argv[1:])
