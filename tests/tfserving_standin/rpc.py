"""TensorFlow Serving's gRPC services on the official generated stubs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from tests.tfserving_standin.models import Models, Problem

_THREADS = 16


def start(models: Models, port: int, address: str = "127.0.0.1") -> Any:
    """Answers on `address` from threads of its own."""
    server = grpc.server(
        ThreadPoolExecutor(_THREADS),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(models), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Model(models), server)
    server.add_insecure_port(f"{address}:{port}")
    server.start()
    return server


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    def __init__(self, models: Models) -> None:
        self._models = models

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _answer(self._models.predict, request, context)

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _answer(self._models.metadata, request, context)


class _Model(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    def __init__(self, models: Models) -> None:
        self._models = models

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _answer(self._models.status, request.model_spec, context)


def _answer(work: Callable[[Any], Any], request: Any, context: Any) -> Any:
    try:
        return work(request)
    except Problem as problem:
        return context.abort(problem.code, problem.message)
