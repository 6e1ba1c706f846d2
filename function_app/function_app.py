"""The Azure Functions door (Python v2 model): every path goes to the one WSGI application."""

from __future__ import annotations

import os
import sys
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import azure.functions as func
from werkzeug.wrappers import Response

from shared.errors import ConfigurationError
from shared.host import LIBRARY_VARIABLES
from shared.settings import Settings
from shared.web import application

for name, value in LIBRARY_VARIABLES.items():
    os.environ.setdefault(name, value)

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# The host has read the body to its end, however it came.
_OF_THE_BODY = frozenset(("content-type", "content-length", "transfer-encoding"))


def _auth_level() -> func.AuthLevel:
    """What the settings say. Where they are wrong every request is let in, to be told by the application which one is:
    it answers nothing else then."""
    try:
        return func.AuthLevel(Settings.load().azure_auth_level)
    except ConfigurationError:
        return func.AuthLevel.ANONYMOUS


app = func.FunctionApp(http_auth_level=_auth_level())


@app.function_name("http")
@app.route(route="{*path}", methods=_METHODS)
def http(req: func.HttpRequest) -> func.HttpResponse:
    """One HTTP request. `func.WsgiMiddleware` is not used: it raises on every reply of 500 and above, so that a 503 and
    its Retry-After would reach the caller as an empty 500."""
    with Response.from_app(application, _environ(req)) as reply:
        headers: dict[str, str] = {}
        for name, value in reply.headers:  # the worker keeps one value a name
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return func.HttpResponse(
            reply.get_data(), status_code=reply.status_code, headers=headers, mimetype=reply.content_type
        )


def _environ(req: func.HttpRequest) -> dict[str, Any]:
    """The request as PEP 3333 has it."""
    url = urlsplit(req.url)
    body = req.get_body() or b""
    environ: dict[str, Any] = {
        "HTTP_" + name.upper().replace("-", "_"): value
        for name, value in req.headers.items()
        if name.lower() not in _OF_THE_BODY
    }
    return environ | {
        "REQUEST_METHOD": req.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(url.path).decode("latin-1"),
        "QUERY_STRING": url.query,
        "CONTENT_TYPE": req.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": url.hostname or "localhost",
        "SERVER_PORT": str(url.port or (443 if url.scheme == "https" else 80)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme or "https",
        "wsgi.input": BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
