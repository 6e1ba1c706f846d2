"""The bare script behind functions-framework."""

from __future__ import annotations

import functions_framework
from flask import Request, Response, jsonify

from tests.bench.doors.bare import Detector

detector = Detector()


@functions_framework.http
def predict(request: Request) -> Response:
    return jsonify(detector(request.get_data()))
