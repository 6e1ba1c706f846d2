"""The same bytes through the plain container, Google's functions-framework and Azure's worker: the same answers."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests import servers
from tests.servers import Server

_PAGE = "https://page.example"
_LIMIT_MB = 2
_SETTINGS = {
    "THINLENS_CORS_ORIGINS": _PAGE,
    "THINLENS_MAX_BODY_MB": str(_LIMIT_MB),
    "THINLENS_MAX_PIXELS": "4000000",
    "AIP_HEALTH_ROUTE": "/vertex/health",
    "AIP_PREDICT_ROUTE": "/vertex/predict",
}
_JPEG = {"Content-Type": "image/jpeg"}
_JSON = {"Content-Type": "application/json"}
_TIMEOUT_S = 30


@pytest.fixture(
    scope="module", params=["container", "google", pytest.param("azure", marks=pytest.mark.azure)], name="door"
)
def _door(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "azure":
        # In the cloud a front end gathers the chunks of a body before the Functions host sees them.
        with servers.azure(_SETTINGS, ["--gather-chunks"]) as server:
            yield server
    else:
        with servers.DOORS[request.param](_SETTINGS) as server:
            yield server


@pytest.fixture(scope="module")
def expected(live_server: str, photo: bytes) -> Any:
    """The predictions for the photo of a server that none of these tests touches otherwise."""
    return requests.post(f"{live_server}/predict", data=photo, headers=_JPEG, timeout=_TIMEOUT_S).json()["predictions"]


def _post(door: Server, path: str = "/predict", **request: Any) -> requests.Response:
    return requests.post(door.url + path, timeout=_TIMEOUT_S, **request)


def _in_chunks(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 10_000):
        yield data[at : at + 10_000]


def _form(photo: bytes) -> tuple[bytes, dict[str, str]]:
    request = requests.Request("POST", "http://x/", files={"image": ("street.jpg", photo, "image/jpeg")}).prepare()
    assert isinstance(request.body, bytes)
    return request.body, {"Content-Type": request.headers["Content-Type"]}


def _json(photo: bytes, **fields: object) -> bytes:
    return json.dumps({"image_base64": b64encode(photo).decode(), **fields}).encode()


# The ways to send a picture


def test_the_reference_finds_people_and_cars(expected: Any) -> None:
    assert {"person", "car"} <= {found["label"] for found in expected}


def test_a_raw_body_gives_the_same_predictions(door: Server, photo: bytes, expected: Any) -> None:
    assert _post(door, data=photo, headers=_JPEG).json()["predictions"] == expected


def test_a_raw_body_without_a_type_gives_the_same_predictions(door: Server, photo: bytes, expected: Any) -> None:
    assert _post(door, data=photo).json()["predictions"] == expected


def test_a_form_gives_the_same_predictions(door: Server, photo: bytes, expected: Any) -> None:
    body, headers = _form(photo)
    assert _post(door, data=body, headers=headers).json()["predictions"] == expected


def test_base64_in_json_gives_the_same_predictions(door: Server, photo: bytes, expected: Any) -> None:
    assert _post(door, data=_json(photo), headers=_JSON).json()["predictions"] == expected


def test_a_raw_body_in_chunks_gives_the_same_predictions(door: Server, photo: bytes, expected: Any) -> None:
    assert _post(door, data=_in_chunks(photo), headers=_JPEG).json()["predictions"] == expected


def test_a_form_in_chunks_gives_the_same_predictions(door: Server, photo: bytes, expected: Any) -> None:
    body, headers = _form(photo)
    assert _post(door, data=_in_chunks(body), headers=headers).json()["predictions"] == expected


def test_json_in_chunks_gives_the_same_predictions(door: Server, photo: bytes, expected: Any) -> None:
    assert _post(door, data=_in_chunks(_json(photo)), headers=_JSON).json()["predictions"] == expected


def test_a_named_model_gives_the_same_predictions(door: Server, photo: bytes, expected: Any) -> None:
    reply = _post(door, "/models/coco%2Dssd-mobilenet-v2/predict", data=photo, headers=_JPEG)
    assert reply.json()["predictions"] == expected


def test_parameters_of_the_query_are_honoured(door: Server, photo: bytes, expected: Any) -> None:
    reply = _post(door, '/predict?labels=%5B%22car%22%2C"person"]&max_predictions=2', data=photo, headers=_JPEG)
    assert reply.json()["predictions"] == [found for found in expected if found["label"] in ("car", "person")][:2]


def test_vertex_instances_give_the_same_predictions(door: Server, photo: bytes, expected: Any) -> None:
    instances = [{"image_base64": b64encode(photo).decode()}, {"image_base64": "?"}]
    reply = _post(door, "/vertex/predict", json={"instances": instances})
    good, bad = reply.json()["predictions"]
    assert (reply.status_code, good["predictions"], bad["error"]["code"]) == (200, expected, "invalid_base64")


def test_vertex_health_is_readiness(door: Server, photo: bytes) -> None:
    _post(door, data=photo, headers=_JPEG)
    assert requests.get(f"{door.url}/vertex/health", timeout=_TIMEOUT_S).json() == {"state": "ready", "backend": "onnx"}


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
def test_a_drawn_picture_comes_whole(door: Server, photo: bytes, format_: str) -> None:
    reply = _post(door, data=photo, headers={**_JPEG, "Accept": f"image/{format_}"})
    assert reply.headers["Content-Type"] == f"image/{format_}"
    with Image.open(BytesIO(reply.content)) as drawn, Image.open(BytesIO(photo)) as sent:
        drawn.load()
        assert (drawn.format, drawn.size) == (format_.upper(), sent.size)


def test_the_page_comes_with_its_files(door: Server) -> None:
    page = requests.get(f"{door.url}/", timeout=_TIMEOUT_S)
    assert page.headers["Content-Type"].startswith("text/html")
    assert "<form" in page.text


# What is wrong with a request is said alike


def _wide() -> bytes:
    """A picture of few bytes and, by a little, too many pixels."""
    file = BytesIO()
    Image.new("1", (2001, 2000)).save(file, "PNG")
    return file.getvalue()


_HALF = b"half of the photo"
_LARGE = b"\xff" * (_LIMIT_MB * 1_000_000 + 1)
_BAD: dict[str, tuple[str, str, dict[str, str], bytes, int, str]] = {
    "nothing sent": ("POST", "/predict", {}, b"", 400, "no_image"),
    "GET without a picture": ("GET", "/predict", {}, b"", 400, "no_image"),
    "JSON that is none": ("POST", "/predict", _JSON, b"{", 400, "invalid_json"),
    "base64 that is none": ("POST", "/predict", _JSON, b'{"image_base64": "?"}', 400, "invalid_base64"),
    "two pictures": ("POST", "/predict?image_url=http://x/", _JPEG, b"\xff\xd8\xff", 400, "several_images"),
    "a form without boundary": (
        "POST", "/predict", {"Content-Type": "multipart/form-data"}, b"x", 400, "invalid_multipart",
    ),
    "an empty envelope": ("POST", "/vertex/predict", _JSON, b'{"instances": []}', 400, "invalid_envelope"),
    "a parameter out of range": ("POST", "/predict?score_threshold=7", _JPEG, b"x", 400, "invalid_parameter"),
    "a parameter given twice": (
        "POST", "/predict?score_threshold=0&score_threshold=1", _JPEG, b"x", 400, "invalid_parameter",
    ),
    "an unknown parameter": ("POST", "/predict?no_such=1", _JPEG, b"x", 400, "unknown_parameter"),
    "a URL within": ("GET", "/predict?image_url=http%3A%2F%2F127.0.0.1%2F", {}, b"", 400, "url_refused"),
    "an unknown path": ("GET", "/nowhere", {}, b"", 404, "route_not_found"),
    "an encoded slash": ("GET", "/models/a%2Fb", {}, b"", 404, "route_not_found"),
    "a path beyond ASCII": ("GET", "/modèles/東京", {}, b"", 404, "route_not_found"),
    "an unknown model": ("POST", "/models/none/predict", _JPEG, b"x", 404, "model_not_found"),
    "DELETE": ("DELETE", "/predict", {}, b"", 405, "method_not_allowed"),
    "PUT": ("PUT", "/health", {}, b"x", 405, "method_not_allowed"),
    "an Accept that is not served": (
        "POST", "/predict", {**_JPEG, "Accept": "application/xml"}, b"x", 406, "not_acceptable",
    ),
    "a body too large": ("POST", "/predict", _JPEG, _LARGE, 413, "body_too_large"),
    "too many pixels": ("POST", "/predict", _JPEG, _wide(), 413, "image_too_large"),
    "text": ("POST", "/predict", {"Content-Type": "text/plain"}, b"x", 415, "unsupported_media_type"),
    "no picture": ("POST", "/predict", _JPEG, b"hello", 415, "not_an_image"),
    "half a picture": ("POST", "/predict", _JPEG, _HALF, 422, "image_undecodable"),
}  # fmt: skip


@pytest.mark.parametrize("what", _BAD)
def test_a_bad_request_is_refused_alike(door: Server, photo: bytes, what: str) -> None:
    method, path, headers, body, status, code = _BAD[what]
    data = photo[: len(photo) // 2] if body is _HALF else body
    reply = requests.request(
        method, door.url + path, data=data, headers={"X-Request-Id": "bad-1", **headers}, timeout=_TIMEOUT_S
    )
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["request_id"]) == (status, code, "bad-1")


def test_too_large_a_body_in_chunks_is_refused_with_the_limit(door: Server) -> None:
    reply = _post(door, data=_in_chunks(_LARGE), headers=_JPEG)
    assert (reply.status_code, reply.json()["error"]["limit"]) == (413, _LIMIT_MB * 1_000_000)


def test_a_refused_method_names_those_that_are_possible(door: Server) -> None:
    reply = requests.delete(f"{door.url}/predict", timeout=_TIMEOUT_S)
    assert set(reply.headers["Allow"].split(", ")) >= {"GET", "HEAD", "POST"}


def test_the_server_answers_on_after_all_that(door: Server, photo: bytes, expected: Any) -> None:
    for method, path, headers, body, *_ in _BAD.values():
        data = photo[:1000] if body is _HALF else body
        requests.request(method, door.url + path, data=data, headers=headers, timeout=_TIMEOUT_S)
    assert _post(door, data=photo, headers=_JPEG).json()["predictions"] == expected


# Headers, both ways


def test_the_callers_request_id_comes_back(door: Server, photo: bytes) -> None:
    reply = _post(door, data=photo, headers={**_JPEG, "X-Request-Id": "caller/1"})
    assert (reply.headers["X-Request-Id"], reply.json()["request_id"]) == ("caller/1", "caller/1")


def test_a_request_without_an_id_gets_one(door: Server) -> None:
    reply = requests.get(f"{door.url}/health", timeout=_TIMEOUT_S)
    assert len(reply.headers["X-Request-Id"]) == 32


def test_a_known_origin_may_read_the_reply(door: Server) -> None:
    reply = requests.get(f"{door.url}/models", headers={"Origin": _PAGE}, timeout=_TIMEOUT_S)
    assert reply.headers["Access-Control-Allow-Origin"] == _PAGE


def test_an_unknown_origin_may_not_read_the_reply(door: Server) -> None:
    reply = requests.get(f"{door.url}/models", headers={"Origin": "https://other.example"}, timeout=_TIMEOUT_S)
    assert "Access-Control-Allow-Origin" not in reply.headers


def test_a_known_origin_may_ask_first(door: Server) -> None:
    asked = {"Origin": _PAGE, "Access-Control-Request-Method": "POST"}
    reply = requests.options(f"{door.url}/predict", headers=asked, timeout=_TIMEOUT_S)
    assert (reply.status_code, reply.headers["Access-Control-Allow-Methods"]) == (204, "GET, HEAD, POST, OPTIONS")


def test_head_gives_the_headers_alone(door: Server) -> None:
    head = requests.head(f"{door.url}/health", timeout=_TIMEOUT_S)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "18", b"")


def test_a_request_leaves_one_json_line_in_the_log(door: Server) -> None:
    requests.get(f"{door.url}/models", headers={"X-Request-Id": "logged-1"}, timeout=_TIMEOUT_S)
    lines = [json.loads(line) for line in door.log.splitlines() if '"logged-1"' in line]
    assert [(line["route"], line["status"]) for line in lines] == [("/models", 200)]


# What is wrong with the service is said alike


@servers.EVERY_DOOR
def test_a_broken_model_is_told_with_the_time_to_come_back(door: str, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{}")
    with servers.DOORS[door]({"THINLENS_MODELS": str(tmp_path)}) as server:
        reply = requests.get(f"{server.url}/ready", timeout=_TIMEOUT_S)
    assert (reply.status_code, reply.json()["state"], reply.json()["error"]["code"]) == (503, "broken", "model_broken")
    assert int(reply.headers["Retry-After"]) > 0


@pytest.mark.parametrize("door", ["container", "google"])
def test_a_wrong_setting_is_told_by_its_name(door: str) -> None:
    with servers.DOORS[door]({"THINLENS_THREADS": "many"}) as server:
        reply = requests.post(f"{server.url}/predict", data=b"x", timeout=_TIMEOUT_S)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "misconfigured")
    assert "THINLENS_THREADS" in reply.json()["error"]["message"]
