"""The bare script with Azure's SDK: one request in, one line out. Waits to be ended, so that its time can be read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import azure.functions as func

from tests.bench.doors.bare import Detector

detector = Detector()


def http(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(detector(req.get_body())), mimetype="application/json")


picture = Path(os.environ["BENCH_PICTURE"]).read_bytes()
headers = {"Content-Type": "image/jpeg"}
response = http(func.HttpRequest(method="POST", url="http://localhost/predict", headers=headers, body=picture))
sys.stdout.write(response.get_body().decode() + "\n")
sys.stdout.flush()
sys.stdin.read()
