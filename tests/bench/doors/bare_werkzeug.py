"""The bare script behind a plain WSGI server, answering through Werkzeug as both clouds' libraries make it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wrappers import Request, Response

from tests.bench.doors.bare_wsgi import application as bare


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return Response.from_app(bare, Request(environ).environ)(environ, start_response)
