from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from werkzeug.test import Client

from shared import errors
from shared.service import Service
from shared.settings import Settings
from shared.web.application import Application
from tests.clients import bundle, client, picture, post

VERTEX = Settings(health_route="/v1/h", predict_route="/v1/m:predict")


@pytest.fixture(scope="module")
def served() -> Client:
    return client()


def document(of: Client) -> dict[str, Any]:
    content: dict[str, Any] = of.get("/openapi.json", headers={"X-API-Key": "k"}).get_json()
    return content


@pytest.mark.parametrize("settings", [{}, {"api_keys": ("k",)}, {"health_route": "/h", "predict_route": "/p"}])
def test_it_is_a_valid_document(settings: dict[str, Any]) -> None:
    validate(document(client(**settings)), cls=OpenAPIV31SpecValidator)


def test_it_is_valid_with_a_broken_model_and_no_default(tmp_path: Path) -> None:
    bundle(tmp_path, "good")
    bundle(tmp_path, "bad", family="nothing")
    validate(document(client(models=str(tmp_path))), cls=OpenAPIV31SpecValidator)


@pytest.mark.parametrize("settings", [Settings(), VERTEX], ids=["plain", "vertex"])
def test_every_route_and_method_is_in_it_and_nothing_else(settings: Settings) -> None:
    names = "|".join(Service(settings).models)
    routed = {
        (template.replace("...", ""), method.lower())
        for template, endpoints in Application(settings).paths.table.items()
        for method in endpoints
    }
    paths = document(client(health_route=settings.health_route, predict_route=settings.predict_route))["paths"]
    written = {
        (re.sub(rf"^/models/(?:{names})/predict$", "/models/{name}/predict", path), method)
        for path, operations in paths.items()
        for method in operations.keys() - {"parameters"}
    }
    assert written == routed


def test_every_code_is_in_it_under_its_status(served: Client) -> None:
    written = document(served)
    for kind in errors.kinds():
        response = written["components"]["responses"][str(kind.status)]
        codes = response["content"]["application/json"]["schema"]["allOf"][1]["properties"]["error"]["properties"][
            "code"
        ]
        assert kind.code in codes["enum"]
        assert f"`{kind.code}`" in response["description"]


def test_every_parameter_of_the_model_is_in_it_with_its_own_default(served: Client) -> None:
    model = Service(Settings()).find(None)
    properties: Any = model.parameters()["properties"]
    for path in ("/predict", f"/models/{model.name}/predict"):
        for method in ("get", "post"):
            given = {each.get("name"): each for each in document(served)["paths"][path][method]["parameters"]}
            assert given["max_predictions"]["schema"] == properties["max_predictions"]
            assert given.keys() >= properties.keys()


def test_a_list_in_the_query_is_json_text(served: Client) -> None:
    (labels,) = (p for p in document(served)["paths"]["/predict"]["get"]["parameters"] if p.get("name") == "labels")
    assert labels["content"]["application/json"]["schema"]["type"] == "array"


def test_keys_are_asked_for_where_there_are_keys(served: Client) -> None:
    locked = client(api_keys=("k",))
    written = document(locked)
    assert written["security"] == [{"key": []}, {"bearer": []}]
    for path, operations in written["paths"].items():
        for method, operation in operations.items():
            if method == "parameters":
                continue
            url = path.replace("{name}", "app.js" if "static" in path else "coco-ssd-mobilenet-v2")
            refused = locked.open(url, method=method.upper()).status_code == 401
            assert refused == (operation.get("security") != []), (method, path)
    assert "securitySchemes" not in document(served)["components"]


@pytest.mark.parametrize(
    ("request_", "schema"),
    [
        ({"data": picture(), "content_type": "image/png"}, "Reply"),
        ({"data": b"x"}, "Failure"),
        ({"json": {"instances": [{"image": base64.b64encode(picture()).decode()}, {}]}}, "VertexReply"),
    ],
)
def test_replies_are_as_it_says(request_: dict[str, Any], schema: str, served: Client) -> None:
    reply = served.post("/predict", **request_).json
    components = {"components": {"schemas": document(served)["components"]["schemas"]}}
    OAS31Validator({"$ref": f"#/components/schemas/{schema}"} | components).validate(reply)


def test_models_and_readiness_are_as_it_says(tmp_path: Path) -> None:
    bundle(tmp_path, "good")
    bundle(tmp_path, "bad", family="nothing")
    both = client(models=str(tmp_path), model="bad")
    post(both)
    written = document(both)
    schemas = {"components": {"schemas": written["components"]["schemas"]}}
    for path, status in (("/models", "200"), ("/models/bad", "200"), ("/models/good", "200"), ("/ready", "503")):
        operation = written["paths"][re.sub("/models/.*", "/models/{name}", path)]["get"]
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        OAS31Validator(schema | schemas).validate(both.get(path).json)
