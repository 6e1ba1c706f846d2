"""Paths and methods to endpoints."""

from __future__ import annotations

import pytest
from werkzeug.wrappers import Response

from shared.errors import MethodNotAllowed, RouteNotFound
from shared.web.paths import Endpoint, Paths

ENDPOINT = Endpoint(lambda _: Response())
PATHS = Paths(
    {
        "/": {"GET": ENDPOINT},
        "/models/{name}": {"GET": ENDPOINT},
        "/models/{name}/predict": {"GET": ENDPOINT, "POST": ENDPOINT},
        "/models/all": {"GET": ENDPOINT},
        "/static/{name...}": {"GET": ENDPOINT},
        "/v1/m:predict": {"POST": ENDPOINT},
    }
)


@pytest.mark.parametrize(
    ("path", "template", "arguments"),
    [
        ("", "/", {}),
        ("/", "/", {}),
        ("/models/a.b-c", "/models/{name}", {"name": "a.b-c"}),
        ("/models/a/", "/models/{name}", {"name": "a"}),
        ("/models/all", "/models/all", {}),
        ("/models/a/predict", "/models/{name}/predict", {"name": "a"}),
        ("/static/samples/a.jpg", "/static/{name...}", {"name": "samples/a.jpg"}),
        ("/v1/m:predict", "/v1/m:predict", {}),
        ("/models/\xc3\xa9", "/models/{name}", {"name": "é"}),
    ],
)
def test_a_path_is_found_with_its_parts(path: str, template: str, arguments: dict[str, str]) -> None:
    found = PATHS.find(path)
    assert (found.template, found.arguments) == (template, arguments)


@pytest.mark.parametrize(
    "path", ["/model", "/models", "/models/", "/models//predict", "/static", "//x", "/v1/mXpredict"]
)
def test_any_other_path_is_none(path: str) -> None:
    with pytest.raises(RouteNotFound):
        PATHS.find(path)


def test_head_goes_with_get() -> None:
    assert PATHS.find("/").endpoint("HEAD") is ENDPOINT


def test_another_method_is_told_those_that_are_possible() -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        PATHS.find("/models/a/predict").endpoint("PUT")
    assert caught.value.allowed == ["GET", "HEAD", "OPTIONS", "POST"]
