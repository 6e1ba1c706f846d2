"""The Google door: Cloud Functions and Cloud Run, through functions-framework."""

from __future__ import annotations

import functions_framework
from flask import Request
from werkzeug.wrappers import Response

from shared.web import application


@functions_framework.http
def predict(request: Request) -> Response:
    """Every path of the one target goes to the WSGI application."""
    return Response.from_app(application, request.environ)
