"""The bare script behind a plain WSGI server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.bench.doors.bare import Detector

detector = Detector()


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    reply = json.dumps(detector(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(reply)))])
    return [reply]
