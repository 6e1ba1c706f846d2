"""What the Functions host and its Python worker say to each other, as far as HTTP needs it.

The worker is handed this module in place of the generated protobuf classes: it makes its answers of the classes here
and reads requests by attribute. The names are the protocol's.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class _Message(SimpleNamespace):
    """A message with the fields that it was made with."""


class _OneOf(_Message):
    """A message that holds one field of several, or none."""

    def WhichOneof(self, group: str) -> str | None:  # noqa: N802 - protobuf's name
        return next(iter(vars(self)), None)


class TypedData(_OneOf):
    pass


class ParameterBinding(_Message):
    def WhichOneof(self, group: str) -> str:  # noqa: N802 - protobuf's name
        return "data"


class StatusResult(_Message):
    Failure, Success, Cancelled = 0, 1, 2


class BindingInfo(_Message):
    undefined = 0
    out, inout = 1, 2


class RpcHttp(_Message):
    pass


class RpcException(_Message):
    pass


class RpcFunctionMetadata(_Message):
    pass


class FunctionLoadResponse(_Message):
    pass


class FunctionMetadataResponse(_Message):
    pass


class InvocationResponse(_Message):
    pass


class WorkerInitResponse(_Message):
    pass


class WorkerMetadata(_Message):
    pass


def init_request(folder: str) -> _Message:
    return _Message(function_app_directory=folder, capabilities={})


def load_request(function_id: str) -> _Message:
    return _Message(function_id=function_id)


def invocation_request(invocation_id: str, function_id: str, inputs: dict[str, TypedData]) -> _Message:
    return _Message(
        invocation_id=invocation_id,
        function_id=function_id,
        input_data=[ParameterBinding(name=name, data=data) for name, data in inputs.items()],
        trigger_metadata={},
        trace_context=_Message(trace_parent="", trace_state="", attributes={}),
        retry_context=_Message(retry_count=0, max_retry_count=0, exception=RpcException(message="", stack_trace="")),
    )


def envelope(host: str, protos: Any, **request: _Message | None) -> _Message:
    """A request as the worker takes it: the message under its name, and where the protocol's classes are."""
    return _Message(request=_Message(**request), properties={"host": host, "protos": protos})
