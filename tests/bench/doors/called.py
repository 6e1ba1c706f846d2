"""Our stubbed application, or a bare Werkzeug one, called without a socket: for each number read, so many requests."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from io import BytesIO
from time import perf_counter, process_time
from typing import Any

from werkzeug.wrappers import Request, Response

from tests.bench.pictures import tiny


def bare() -> Callable[..., Iterable[bytes]]:
    reply = os.environ["BENCH_REPLY"].encode()

    @Request.application
    def application(request: Request) -> Response:
        request.get_data()
        return Response(reply, content_type="application/json")

    return application


def environ(body: bytes) -> dict[str, Any]:
    """What gunicorn makes of a request of ours."""
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/predict",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8080",
        "HTTP_ACCEPT_ENCODING": "identity",
        "CONTENT_TYPE": "image/jpeg",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
    }


if __name__ == "__main__":
    picture = tiny()
    called = bare() if sys.argv[1] == "bare" else import_module("tests.bench.doors.stubbed").application
    for line in sys.stdin:
        wall, cpu = perf_counter(), process_time()
        for _ in range(int(line)):
            b"".join(called(environ(picture), lambda status, headers, _=None: None))
        times_ms = [(perf_counter() - wall) * 1e3, (process_time() - cpu) * 1e3]
        sys.stdout.write(json.dumps({"times_ms": times_ms}) + "\n")
        sys.stdout.flush()
