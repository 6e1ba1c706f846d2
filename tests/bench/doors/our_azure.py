"""Our Azure door as the worker uses it: the app is indexed, its one function called. Waits to be ended."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import azure.functions as func

(function,) = import_module("function_app").app.get_functions()
picture = Path(os.environ["BENCH_PICTURE"]).read_bytes()
headers = {"Content-Type": "image/jpeg"}
request = func.HttpRequest(method="POST", url="http://localhost/predict", headers=headers, body=picture)
response = function.get_user_function()(request)
assert response.status_code == 200, response.get_body()
sys.stdout.write(response.get_body().decode() + "\n")
sys.stdout.flush()
sys.stdin.read()
