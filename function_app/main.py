"""The Google door: Cloud Functions and Cloud Run, through functions-framework."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import functions_framework
from flask import Request
from werkzeug.wrappers import Response

from shared.errors import ConfigurationError
from shared.host import LIBRARY_VARIABLES
from shared.settings import Settings
from shared.web import application

if sys.platform != "win32":  # where functions-framework runs without gunicorn
    from gunicorn.workers import gthread  # type: ignore[import-untyped]

    # How long idle connections may hold a stopping process. Gunicorn's own two seconds cannot be set otherwise here:
    # functions-framework hands no options on and reads no configuration of gunicorn's.
    gthread.STOP_KEEPALIVE_LINGER = 0.5

for name, value in LIBRARY_VARIABLES.items():
    os.environ.setdefault(name, value)
# functions-framework reads it after this file; its own four a core would leave none for /health under load.
with suppress(ConfigurationError):  # the application tells which setting is wrong
    os.environ.setdefault("THREADS", str(Settings.load().server_threads))


@functions_framework.http
def predict(request: Request) -> Response:
    """Every path of the one target goes to the WSGI application."""
    return Response.from_app(application, request.environ)
