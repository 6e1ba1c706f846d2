"""The Azure app object without a host: azure-functions indexes it, and its function is called with request objects.

A program of its own, since an app can be indexed once a process. It reads requests as a JSON array from standard input
and writes the functions and the replies. Bodies are base64.

    python tests/azure_app.py function_app/function_app.py < requests.json
"""

from __future__ import annotations

import importlib.util
import json
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import azure.functions as func


def main(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("function_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # The standard library's own check that a server and an application keep to PEP 3333, between the door and ours.
    module.application = validator(module.application)  # type: ignore[attr-defined]
    functions = module.app.get_functions()
    call = functions[0].get_user_function()
    indexed = [json.loads(function.get_function_json()) for function in functions]
    replies = [_replied(call(_request(given))) for given in json.load(sys.stdin)]
    json.dump({"functions": indexed, "replies": replies}, sys.stdout)


def _request(given: dict[str, Any]) -> func.HttpRequest:
    return func.HttpRequest(
        given["method"],
        given["url"],
        headers=given.get("headers", {}),
        params={},
        route_params={},
        body=b64decode(given.get("body", "")),
    )


def _replied(response: func.HttpResponse) -> dict[str, object]:
    return {
        "status": response.status_code,
        "headers": dict(response.headers),
        "mimetype": response.mimetype,
        "body": b64encode(response.get_body()).decode(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
