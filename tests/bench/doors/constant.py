"""A WSGI application, and a Google function, that read the body and answer with the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import functions_framework
from flask import Request, Response

_REPLY = os.environ["BENCH_REPLY"].encode()


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(_REPLY)))])
    return [_REPLY]


@functions_framework.http
def predict(request: Request) -> Response:
    request.get_data()
    return Response(_REPLY, content_type="application/json")
