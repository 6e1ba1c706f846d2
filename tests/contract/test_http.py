"""The HTTP contract of the application, on the bundled model: what may come in, what goes back, and what goes wrong."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any, ClassVar

import pytest
from PIL import Image as Pillow
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.test import Client, TestResponse

from shared import errors
from tests import families
from tests.clients import bundle, client, failed, picture, post, unfitting_bundle

JSON = "application/json"


@pytest.fixture(scope="session")
def served() -> Client:
    """The bundled model, under the default settings but for URLs, which may be this machine's."""
    return client(url_fetch="127.0.0.1")


@pytest.fixture(scope="session")
def encoded(photo: bytes) -> str:
    return base64.b64encode(photo).decode()


@pytest.fixture(scope="session")
def found(served: Client, photo: bytes) -> list[dict[str, Any]]:
    """What the model sees in the photograph."""
    response = served.post("/predict", data=photo, content_type="image/jpeg")
    predictions: list[dict[str, Any]] = response.get_json()["predictions"]
    assert {"person", "car"} <= {each["label"] for each in predictions}
    return predictions


class _Files(BaseHTTPRequestHandler):
    """A web server of one photograph; other paths answer as they are called."""

    photo: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        if self.path == "/never":
            sleep(1)
            return
        self.send_response(200 if self.path.startswith("/photo") else int(self.path[1:]))
        self.send_header("Content-Length", str(len(self.photo)))
        self.end_headers()
        self.wfile.write(self.photo)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def files(photo: bytes) -> Iterator[str]:
    _Files.photo = photo
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def in_json(content: object, **rest: Any) -> dict[str, Any]:
    return {"data": json.dumps(content), "content_type": JSON, **rest}


def in_form(photo: bytes, **fields: str) -> dict[str, Any]:
    return {"data": {"image": (BytesIO(photo), "photo.jpg"), **fields}, "content_type": "multipart/form-data"}


# Every way for a picture to come in.

FORMS: dict[str, Callable[[bytes, str], dict[str, Any]]] = {
    "image/jpeg": lambda photo, _: {"data": photo, "content_type": "image/jpeg"},
    "a wrong image type": lambda photo, _: {"data": photo, "content_type": "image/png"},
    "an image type in capitals": lambda photo, _: {"data": photo, "content_type": "IMAGE/JPEG"},
    "octet-stream": lambda photo, _: {"data": photo, "content_type": "application/octet-stream"},
    "no content type": lambda photo, _: {"data": photo},
    "multipart": lambda photo, _: in_form(photo),
    "multipart with an empty field": lambda photo, _: in_form(photo, score_threshold=""),
    "multipart with base64": lambda _, text: {"data": {"image_base64": text}, "content_type": "multipart/form-data"},
    "multipart without a file name": lambda photo, _: {
        "data": {"image": FileStorage(BytesIO(photo), filename="", content_type="image/jpeg")},
        "content_type": "multipart/form-data",
    },
    "base64": lambda _, text: in_json({"image_base64": text}),
    "base64 as image": lambda _, text: in_json({"image": text}),
    "base64, url-safe": lambda _, text: in_json({"image_base64": text.replace("+", "-").replace("/", "_")}),
    "base64, unpadded": lambda _, text: in_json({"image_base64": text.rstrip("=")}),
    "base64 in lines": lambda _, text: in_json(
        {"image_base64": "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))}
    ),
    "data URI": lambda _, text: in_json({"image_base64": f"data:image/jpeg;base64,{text}"}),
    "b64 object": lambda _, text: in_json({"image": {"b64": text}}),
    "JSON with a charset": lambda _, text: (
        in_json({"image": text}) | {"content_type": "application/json; charset=utf-8"}
    ),
    "JSON with nulls": lambda _, text: in_json({"image": text, "image_url": None, "score_threshold": None}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_may_come_in_any_form(
    form: str, served: Client, photo: bytes, encoded: str, found: list[Any]
) -> None:
    response = served.post("/predict", **FORMS[form](photo, encoded))
    assert response.status_code == 200, response.text
    assert response.get_json()["predictions"] == found


@pytest.mark.parametrize("way", ["query", "query of a POST", "JSON", "form"])
def test_a_picture_may_be_fetched_by_its_url(way: str, served: Client, files: str, found: list[Any]) -> None:
    url = f"{files}/photo.jpg"
    response = {
        "query": lambda: served.get("/predict", query_string={"image_url": url}),
        "query of a POST": lambda: served.post("/predict", query_string={"image_url": url}),
        "JSON": lambda: served.post("/predict", **in_json({"image_url": url})),
        "form": lambda: served.post("/predict", data={"image_url": url}, content_type="multipart/form-data"),
    }[way]()
    assert response.get_json()["predictions"] == found


def test_an_unencoded_url_of_utf8_is_read_as_such(served: Client, files: str, found: list[Any]) -> None:
    raw = f"image_url={files}/photo-%C3%A9.jpg&image_name=caf\u00e9".encode().decode("latin-1")
    response = served.get("/predict", environ_overrides={"QUERY_STRING": raw})
    assert response.get_json()["predictions"] == found
    assert response.get_json()["image_name"] == "caf\u00e9"


def test_a_chunked_body_is_read_to_its_end(served: Client, photo: bytes, found: list[Any]) -> None:
    stream = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    response = served.post("/predict", input_stream=BytesIO(photo), content_type="image/jpeg", environ_overrides=stream)
    assert response.get_json()["predictions"] == found


SEVERAL: dict[str, dict[str, Any]] = {
    "body and query": {"data": b"x", "content_type": "image/png", "query_string": {"image_url": "http://a.example/"}},
    "file and field": in_form(b"x", image_url="http://a.example/"),
    "two files": {
        "data": MultiDict([("image", (BytesIO(b"x"), "a.png")), ("image", (BytesIO(b"y"), "b.png"))]),
        "content_type": "multipart/form-data",
    },
    "two fields": in_json({"image_base64": "eA==", "image_url": "http://a.example/"}),
    "two names": in_json({"image_base64": "eA==", "image": "eA=="}),
    "query and JSON": in_json({"image_url": "http://a.example/"}, query_string={"image_url": "http://a.example/"}),
}


@pytest.mark.parametrize("form", SEVERAL)
def test_two_pictures_are_one_too_many(form: str, served: Client) -> None:
    assert failed(served.post("/predict", **SEVERAL[form]), 400, "several_images")["found"] == 2


NONE: dict[str, dict[str, Any]] = {
    "no body": {},
    "empty body": {"data": b"", "content_type": "image/png"},
    "empty file": in_form(b""),
    "empty JSON": in_json({}),
    "empty base64": in_json({"image_base64": ""}),
    "null": in_json({"image": None}),
    "parameters alone": in_json({"score_threshold": 0.5}),
    "a form that was left empty": {
        "data": {"image": FileStorage(BytesIO(b""), filename=""), "image_url": ""},
        "content_type": "multipart/form-data",
    },
}


@pytest.mark.parametrize("form", NONE)
def test_no_picture_is_said_to_be_none(form: str, served: Client) -> None:
    failed(served.post("/predict", **NONE[form]), 400, "no_image")


def test_a_get_without_a_picture_is_told_so(served: Client) -> None:
    failed(served.get("/predict"), 400, "no_image")


# Vertex AI's form.


def test_every_instance_is_answered_in_order_with_its_own_parameters(
    served: Client, encoded: str, found: list[Any]
) -> None:
    instances = [
        {"image_base64": encoded, "image_name": "first"},
        {"image_base64": "###"},
        {"image": {"b64": encoded}, "max_predictions": 2},
        "no object",
        {"image_base64": encoded, "colour": "red"},
        {},
    ]
    response = served.post("/predict", **in_json({"instances": instances, "parameters": {"max_predictions": 1}}))
    assert response.status_code == 200
    first, second, third, *others = response.get_json()["predictions"]
    assert (first["predictions"], first["image_name"]) == (found[:1], "first")
    assert second["error"]["code"] == "invalid_base64"
    assert third["predictions"] == found[:2]
    assert [other["error"]["code"] for other in others] == ["invalid_envelope", "unknown_parameter", "no_image"]


def test_an_instance_that_meets_a_bug_does_not_take_the_others_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle(tmp_path, family="tests.families:buggy")
    encoded = base64.b64encode(picture()).decode()
    response = client(models=str(tmp_path)).post("/predict", **in_json({"instances": [{"image": encoded}, {}]}))
    assert [each["error"]["code"] for each in response.get_json()["predictions"]] == ["internal_error", "no_image"]


def test_instances_whose_turn_comes_too_late_are_not_begun(tmp_path: Path) -> None:
    slow = _own(tmp_path, "slow", timeout_s=0.3)
    post(slow)
    encoded = base64.b64encode(picture()).decode()
    begin = monotonic()
    response = slow.post("/predict", **in_json({"instances": [{"image": encoded}] * 20}))
    assert [each["error"]["code"] for each in response.get_json()["predictions"]] == ["deadline_exceeded"] * 20
    assert monotonic() - begin < 1.5


def test_common_parameters_of_instances_may_ride_in_the_query(served: Client, encoded: str) -> None:
    body = in_json(
        {"instances": [{"image": encoded}], "parameters": {"labels": None}}, query_string={"labels": '["car"]'}
    )
    (only,) = served.post("/predict", **body).get_json()["predictions"]
    assert {each["label"] for each in only["predictions"]} == {"car"}


ENVELOPES: dict[str, dict[str, Any]] = {
    "no instances": {"instances": []},
    "instances that are no array": {"instances": {"image": "eA=="}},
    "null": {"instances": None},
    "too many": {"instances": [{}] * 1001},
    "something beside": {"instances": [{}], "image": "eA=="},
    "parameters that are no object": {"instances": [{}], "parameters": [1]},
    "a picture in the parameters": {"instances": [{}], "parameters": {"image": "eA=="}},
}


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_a_wrong_envelope_is_refused_whole(envelope: str, served: Client) -> None:
    failed(served.post("/predict", **in_json(ENVELOPES[envelope])), 400, "invalid_envelope")


def test_instances_are_answered_in_json_only(served: Client) -> None:
    body = in_json({"instances": [{}]}, headers={"Accept": "image/png"})
    failed(served.post("/predict", **body), 406, "not_acceptable")


# Parameters.

GOOD_PARAMETERS: dict[str, dict[str, Any]] = {
    "a whole number as 1.0": {"max_predictions": 1.0},
    "a whole number as text": {"max_predictions": "1"},
    "a whole number as text with a point": {"max_predictions": "1.0"},
    "a number as text": {"score_threshold": "0.2", "max_predictions": 1},
}


@pytest.mark.parametrize("given", GOOD_PARAMETERS)
def test_numbers_may_be_written_in_any_usual_way(given: str, served: Client, encoded: str, found: list[Any]) -> None:
    response = served.post("/predict", **in_json({"image": encoded, **GOOD_PARAMETERS[given]}))
    assert response.get_json()["predictions"] == found[:1]


@pytest.mark.parametrize("where", ["query", "form", "json"])
def test_parameters_mean_the_same_in_query_form_and_json(
    where: str, served: Client, photo: bytes, encoded: str
) -> None:
    text = {"labels": '["car"]', "max_predictions": "1"}
    response = {
        "query": lambda: served.post("/predict", data=photo, query_string=text),
        "form": lambda: served.post("/predict", **in_form(photo, **text)),
        "json": lambda: served.post("/predict", **in_json({"image": encoded, "labels": ["car"], "max_predictions": 1})),
    }[where]()
    assert [each["label"] for each in response.get_json()["predictions"]] == ["car"]


BAD_QUERIES: dict[str, tuple[str, str]] = {
    "unknown": ("threshold=1", "unknown_parameter"),
    "twice": ("score_threshold=0.1&score_threshold=0.2", "invalid_parameter"),
    "out of range": ("score_threshold=1.5", "invalid_parameter"),
    "below the range": ("max_predictions=0", "invalid_parameter"),
    "NaN": ("score_threshold=NaN", "invalid_parameter"),
    "Infinity": ("score_threshold=Infinity", "invalid_parameter"),
    "overflowing": ("score_threshold=1e309", "invalid_parameter"),
    "a broken number": ("max_predictions=1.5", "invalid_parameter"),
    "a huge number": (f"max_predictions={'9' * 5000}", "invalid_parameter"),
    "no number": ("score_threshold=high", "invalid_parameter"),
    "empty": ("score_threshold=", "invalid_parameter"),
    "a list that is none": ("labels=person", "invalid_parameter"),
    "a broken list": ("labels=[%22person", "invalid_parameter"),
    "a deep list": ("labels=" + "[" * 4000, "invalid_parameter"),
    "a list of numbers": ("labels=[1]", "invalid_parameter"),
    "an unknown label": ("labels=[%22unicorn%22]", "invalid_parameter"),
    "an unknown label that is no text": ("labels=[%22%5Cud800%22]", "invalid_parameter"),
    "bytes that are no text": ("labels=%FF%FE&%FF=1", "unknown_parameter"),
    "an unknown format": ("format=gif", "invalid_parameter"),
    "too many": ("&".join(f"a{i}=1" for i in range(200)), "bad_request"),
}


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_bad_parameter_of_a_query_is_named(query: str, served: Client) -> None:
    text, code = BAD_QUERIES[query]
    error = failed(post(served, query_string=text), 400, code)
    assert len(error["message"]) < 500


BAD_JSON: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "invalid_json"),
    "nothing": (b"", "invalid_json"),
    "an array": (b"[]", "invalid_json"),
    "a number": (b"1", "invalid_json"),
    "deep": (b"[" * 100_000, "invalid_json"),
    "deep inside": (b'{"image": ' + b"[" * 100_000, "invalid_json"),
    "deep and closed": (b'{"labels": ' + b"[" * 400 + b"]" * 400 + b', "image": "eA=="}', "invalid_parameter"),
    "invalid UTF-8": (b'{"image": "\xff"}', "invalid_json"),
    "a lone surrogate": (b'{"image_name": "\\ud800", "image": "eA=="}', "invalid_json"),
    "a lone surrogate as a name": (b'{"\\udc00": 1}', "invalid_json"),
    "a surrogate in UTF-8": (b'{"image": "\xed\xa0\x80"}', "invalid_json"),
    "NaN": (b'{"score_threshold": NaN}', "invalid_json"),
    "an overflowing number": (b'{"score_threshold": 1e309}', "invalid_json"),
    "a large number": (b'{"image": "eA==", "max_predictions": 1' + b"0" * 400 + b"}", "invalid_parameter"),
    "a huge number": (b'{"image": "eA==", "max_predictions": 1' + b"0" * 5000 + b"}", "invalid_json"),
    "a name as long as a body": (b'{"image": "eA==", "' + b"a" * 5_000_000 + b'": 1}', "unknown_parameter"),
    "a big number": (b'{"image": "eA==", "max_predictions": 123456789012345678901234567890}', "invalid_parameter"),
    "a truth for a number": (b'{"image": "eA==", "max_predictions": true}', "invalid_parameter"),
    "an object for a number": (b'{"image": "eA==", "max_predictions": {"a": 1}}', "invalid_parameter"),
    "a number for a picture": (b'{"image": 1}', "invalid_parameter"),
    "an object for a URL": (b'{"image_url": {"b64": "eA=="}}', "invalid_parameter"),
    "an object for an echo": (b'{"image": "eA==", "image_name": {"a": [1]}}', "invalid_parameter"),
    "a number for a format": (b'{"image": "eA==", "format": 3}', "invalid_parameter"),
    "base64 outside ASCII": ('{"image": "é"}'.encode(), "invalid_base64"),
    "a data URI that is none": (b'{"image": "data:image/png,abc"}', "invalid_base64"),
}


@pytest.mark.parametrize("content", BAD_JSON)
def test_bad_json_is_never_the_services_fault(content: str, served: Client) -> None:
    data, code = BAD_JSON[content]
    failed(served.post("/predict", data=data, content_type=JSON), 400, code)


def test_a_label_as_long_as_a_body_is_not_repeated_whole(served: Client) -> None:
    content = {"image": base64.b64encode(picture()).decode(), "labels": ["a" * 5_000_000]}
    assert len(failed(served.post("/predict", **in_json(content)), 400, "invalid_parameter")["message"]) < 1100


def test_of_a_name_that_comes_twice_in_json_the_last_counts(served: Client, encoded: str, found: list[Any]) -> None:
    data = f'{{"image": "{encoded}", "max_predictions": 5, "max_predictions": 1}}'
    assert served.post("/predict", data=data, content_type=JSON).get_json()["predictions"] == found[:1]


def test_the_same_parameter_in_query_and_body_is_refused(served: Client) -> None:
    body = in_json({"image": "eA==", "score_threshold": 0.1}, query_string="score_threshold=0.2")
    failed(served.post("/predict", **body), 400, "invalid_parameter")


def test_azures_own_names_in_a_query_are_none_of_ours(served: Client) -> None:
    assert post(served, query_string="code=a&code=b&clientId=c").status_code == 200


@pytest.mark.parametrize("name", ["image_name", "file_path"])
def test_names_that_a_client_gives_come_back(name: str, served: Client) -> None:
    assert post(served, query_string={name: "[1] ü.png"}).get_json()[name] == "[1] ü.png"


BAD_FORMS: dict[str, dict[str, Any]] = {
    "no boundary": {"data": b"abc", "content_type": "multipart/form-data"},
    "a boundary outside ASCII": {"data": b"abc", "content_type": "multipart/form-data; boundary=\xe9"},
    "no parts": {"data": b"abc", "content_type": "multipart/form-data; boundary=b"},
    "cut": {
        "data": b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc',
        "content_type": "multipart/form-data; boundary=b",
    },
    "too many parts": {"data": {f"a{i}": "b" for i in range(200)}, "content_type": "multipart/form-data"},
}


@pytest.mark.parametrize("form", BAD_FORMS)
def test_a_broken_form_is_said_to_be_broken(form: str, served: Client) -> None:
    failed(served.post("/predict", **BAD_FORMS[form]), 400, "invalid_multipart")


def test_a_file_under_another_name_is_named(served: Client) -> None:
    body = {"data": {"file": (BytesIO(b"x"), "a.png")}, "content_type": "multipart/form-data"}
    assert failed(served.post("/predict", **body), 400, "invalid_parameter")["parameter"] == "file"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "text/html", "nonsense", "video/mp4"]
)
def test_a_body_of_another_type_is_not_taken(kind: str, served: Client) -> None:
    failed(served.post("/predict", data=picture(), content_type=kind), 415, "unsupported_media_type")


# Replies.


def test_a_reply_says_all_that_the_contract_lists(served: Client) -> None:
    reply = post(served).get_json()
    assert reply.keys() == {
        "model", "task", "backend", "image", "predictions", "notes", "timings_ms", "cold_start", "request_id",
    }  # fmt: skip
    assert reply["image"] == {"width": 64, "height": 48}
    assert {"decode", "preprocess", "infer", "postprocess", "total"} <= reply["timings_ms"].keys()


def test_only_the_first_reply_is_a_cold_start(tmp_path: Path) -> None:
    bundle(tmp_path)
    fresh = client(models=str(tmp_path))
    first, second = post(fresh).get_json(), post(fresh).get_json()
    assert (first["cold_start"], second["cold_start"]) == (True, False)
    assert "load" in first["timings_ms"]


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
ACCEPTED = {
    BROWSER: JSON,
    "*/*": JSON,
    "application/*": JSON,
    "application/json; charset=utf-8": JSON,
    "image/png": "image/png",
    "image/*": "image/png",
    "image/jpeg;q=0.5, image/webp": "image/webp",
    "application/json;q=0.1, image/jpeg;q=0.9": "image/jpeg",
    "application/json;q=0, */*": "image/png",
    "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8": "image/webp",
    "image/gif, */*;q=0.1": JSON,
}


@pytest.mark.parametrize("accept", ACCEPTED)
def test_accept_chooses_the_form_of_the_reply(accept: str, served: Client) -> None:
    response = post(served, headers={"Accept": accept})
    assert response.content_type == ACCEPTED[accept]


@pytest.mark.parametrize("format_", ["json", "png", "jpeg", "webp"])
def test_format_wins_over_accept(format_: str, served: Client) -> None:
    response = post(served, query_string={"format": format_}, headers={"Accept": "text/plain"})
    if format_ == "json":
        assert response.get_json()["model"]
    else:
        assert Pillow.open(BytesIO(response.data)).format == format_.upper()


@pytest.mark.parametrize(
    "accept", ["text/plain", "image/gif", "garbage", ";;,,", "image/png;q=0", "a/b/c", "é", "image/png;q=x"]
)
def test_what_cannot_be_given_is_not_acceptable(accept: str, served: Client) -> None:
    failed(post(served, headers={"Accept": accept}), 406, "not_acceptable")


def test_an_error_is_json_whatever_was_accepted(served: Client) -> None:
    failed(served.post("/predict", data=b"no picture", headers={"Accept": "image/png"}), 415, "not_an_image")


# Routes and methods.


@pytest.mark.parametrize("path", ["/nothing", "/predictor", "/models/a/b", "/static/../settings.py", "/%00", "/é"])
def test_an_unknown_path_is_not_found(path: str, served: Client) -> None:
    failed(served.get(path), 404, "route_not_found")


@pytest.mark.parametrize("path", ["/models/nothing", "/models/nothing/predict", "/models/%3Cb%3E"])
def test_an_unknown_model_is_not_found(path: str, served: Client) -> None:
    failed(served.get(path), 404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/predict", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("PUT", "/models", "GET, HEAD, OPTIONS"),
        ("NONSENSE", "/predict", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_another_method_is_told_which_there_are(method: str, path: str, allowed: str, served: Client) -> None:
    response = served.open(path, method=method)
    failed(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/health", "/version", "/models", "/openapi.json", "/metrics", "/static/app.js"])
def test_head_answers_as_get_without_the_body(path: str, served: Client) -> None:
    response = served.head(path)
    assert (response.status_code, response.data) == (200, b"")
    assert response.content_type == served.get(path).content_type


def test_options_tells_the_methods(served: Client) -> None:
    response = served.options("/predict")
    assert (response.status_code, response.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")


def test_version_says_what_is_running(served: Client) -> None:
    assert served.get("/version").get_json().keys() >= {"version", "backend", "python", "git_sha"}


def test_models_lists_each_with_its_parameters(served: Client) -> None:
    listed = {one["name"]: one for one in served.get("/models").get_json()["models"]}
    detector = listed["coco-ssd-mobilenet-v2"]
    assert detector.keys() >= {"name", "task", "family", "backend", "ready", "licence", "parameters"}
    own = {"score_threshold", "iou_threshold", "max_predictions", "labels", "render_factor"}
    assert detector["parameters"]["properties"].keys() == own
    alone = served.get("/models/coco-ssd-mobilenet-v2").get_json()
    assert alone.pop("profile")["backend"] == "onnx"
    assert alone == detector


def test_the_bundled_models_are_of_all_tasks(served: Client) -> None:
    tasks = {one["task"] for one in served.get("/models").get_json()["models"]}
    assert tasks == {"detection", "instance-segmentation", "promptable-segmentation", "super-resolution"}


def test_a_named_model_predicts(served: Client, photo: bytes, found: list[Any]) -> None:
    response = served.post("/models/coco-ssd-mobilenet-v2/predict", data=photo)
    assert response.get_json()["predictions"] == found


def test_a_models_own_parameters_stand_under_the_settings(photo: bytes) -> None:
    strict = client(score_threshold=0.999)
    assert strict.post("/predict", data=photo).get_json()["predictions"] == []
    described = strict.get("/models/coco-ssd-mobilenet-v2").get_json()["parameters"]["properties"]
    assert described["score_threshold"]["default"] == 0.999


# Who may call.


@pytest.fixture(scope="session")
def locked() -> Client:
    return client(api_keys=("first", "sécond"), cors_origins=("https://a.example",))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "first"},
        {"Authorization": "Bearer first"},
        {"Authorization": "bearer  first "},
        {"X-API-Key": "sécond".encode().decode("latin-1")},
    ],
)
def test_a_key_lets_in(headers: dict[str, str], locked: Client) -> None:
    assert locked.get("/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "firs"},
        {"X-API-Key": "first,s\xe9cond"},
        {"X-API-Key": "\xff\xfe"},
        {"Authorization": "Basic first"},
        {"Authorization": "Bearer \xe9"},
        {"Authorization": "Bearer"},
    ],
)
def test_anything_else_does_not(headers: dict[str, str], locked: Client) -> None:
    response = locked.get("/models", headers=headers)
    failed(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/predict", "/models", "/models/x", "/models/x/predict", "/metrics", "/openapi.json"])
def test_what_tells_of_the_model_needs_a_key(path: str, locked: Client) -> None:
    failed(locked.get(path), 401, "unauthorized")


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/version", "/static/app.css"])
def test_the_page_and_the_probes_need_none(path: str, locked: Client) -> None:
    assert locked.get(path).status_code in (200, 503)


def test_the_pages_form_needs_a_key_and_says_so_to_a_person(locked: Client) -> None:
    response = locked.post("/", **in_form(picture()))
    assert (response.status_code, response.mimetype) == (401, "text/html")
    assert "key" in response.text


def test_a_page_of_a_listed_origin_may_read_the_reply(locked: Client) -> None:
    headers = locked.get("/health", headers={"Origin": "https://a.example"}).headers
    assert headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert headers["Vary"] == "Origin"


def test_a_preflight_needs_no_key(locked: Client) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    response = locked.options("/predict", headers=asked)
    assert response.status_code == 204
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    assert "X-API-Key" in response.headers["Access-Control-Allow-Headers"]


def test_a_failure_may_be_read_by_the_page_too(locked: Client) -> None:
    response = locked.get("/models", headers={"Origin": "https://a.example"})
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (401, "https://a.example")


def test_a_page_of_another_origin_may_not(locked: Client) -> None:
    assert "Access-Control-Allow-Origin" not in locked.get("/health", headers={"Origin": "https://b.example"}).headers


def test_without_origins_nothing_is_said_of_them(served: Client) -> None:
    headers = served.options("/predict", headers={"Origin": "https://a.example"}).headers
    assert not [name for name, _ in headers if name.startswith("Access-Control")]


def test_a_star_lets_any_page_read() -> None:
    anyone = client(cors_origins=("*",))
    assert anyone.get("/health", headers={"Origin": "https://b.example"}).headers["Access-Control-Allow-Origin"] == "*"


# The request's id.


@pytest.mark.parametrize("given", ["a", "2f1c-77", "projects/p:1/x=@+.", "a" * 128])
def test_a_request_id_comes_back(given: str, served: Client) -> None:
    response = post(served, headers={"X-Request-Id": given})
    assert response.headers["X-Request-Id"] == response.get_json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "a\tb", '"', "<b>", "\xe9", "{}"])
def test_a_hostile_request_id_is_replaced(given: str, served: Client) -> None:
    told = served.get("/health", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert told != given
    assert len(told) == 32


# What goes wrong.


class _LateStream(BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        sleep(0.3)
        return super().read(size)


def _own(tmp_path: Path, family: str, **settings: Any) -> Client:
    bundle(tmp_path, family=f"tests.families:{family}")
    return client(models=str(tmp_path), **settings)


Provoke = Callable[[Client, Path, str], TestResponse]
PROVOKED: dict[str, Provoke] = {
    "bad_request": lambda c, t, f: post(c, environ_overrides={"CONTENT_LENGTH": "9999"}),
    "invalid_json": lambda c, t, f: c.post("/predict", data=b"{", content_type=JSON),
    "invalid_base64": lambda c, t, f: c.post("/predict", **in_json({"image": "a"})),
    "invalid_multipart": lambda c, t, f: c.post("/predict", data=b"abc", content_type="multipart/form-data"),
    "invalid_parameter": lambda c, t, f: post(c, query_string="score_threshold=2"),
    "unknown_parameter": lambda c, t, f: post(c, query_string="colour=red"),
    "no_image": lambda c, t, f: c.post("/predict"),
    "several_images": lambda c, t, f: post(c, query_string={"image_url": "http://a.example"}),
    "invalid_envelope": lambda c, t, f: c.post("/predict", **in_json({"instances": []})),
    "url_refused": lambda c, t, f: c.get("/predict", query_string={"image_url": "http://10.0.0.1/"}),
    "url_unresolved": lambda c, t, f: client().get("/predict?image_url=http://no-such-host.invalid/"),
    "unauthorized": lambda c, t, f: client(api_keys=("a",)).get("/models"),
    "route_not_found": lambda c, t, f: c.get("/nothing"),
    "model_not_found": lambda c, t, f: c.get("/models/nothing"),
    "method_not_allowed": lambda c, t, f: c.delete("/predict"),
    "not_acceptable": lambda c, t, f: post(c, headers={"Accept": "text/plain"}),
    "upload_too_slow": lambda c, t, f: _own(t, "nothing", timeout_s=0.2).post(
        "/predict", input_stream=_LateStream(picture()), content_length=len(picture())
    ),
    "body_too_large": lambda c, t, f: post(_own(t, "nothing", max_body_mb=1e-4), data=bytes(101)),
    "image_too_large": lambda c, t, f: post(_own(t, "nothing", max_pixels=64 * 48 - 1)),
    "out_of_memory": lambda c, t, f: post(_own(t, "hungry")),
    "unsupported_media_type": lambda c, t, f: post(c, content_type="text/plain"),
    "not_an_image": lambda c, t, f: post(c, data=b"no picture"),
    "image_undecodable": lambda c, t, f: post(c, data=picture()[:60]),
    "url_failed": lambda c, t, f: c.get("/predict", query_string={"image_url": f"{f}/404"}),
    "url_timeout": lambda c, t, f: client(url_fetch="127.0.0.1", url_timeout_s=0.2).get(
        "/predict", query_string={"image_url": f"{f}/never"}
    ),
    "internal_error": lambda c, t, f: post(_own(t, "buggy")),
    "wrong_answer": lambda c, t, f: post(_own(t, "misusing")),
    "model_broken": lambda c, t, f: post(_own(t, "exploding")),
    "deadline_exceeded": lambda c, t, f: post(_own(t, "slow", timeout_s=0.2)),
}
ELSEWHERE = {
    "too_many_requests", "at_capacity", "not_ready", "model_output_mismatch",
    "misconfigured",  # tests/contract/test_running_server.py
    "server_failed", "server_unreachable", "server_busy", "server_timeout",  # tests/contract/test_failing_server.py
}  # fmt: skip


@pytest.mark.parametrize("code", PROVOKED)
def test_a_failure_has_its_status_and_code_and_nothing_that_is_none_of_the_callers(
    code: str, served: Client, tmp_path: Path, files: str
) -> None:
    (kind,) = (kind for kind in errors.kinds() if kind.code == code)
    response = PROVOKED[code](served, tmp_path, files)
    failed(response, kind.status, code)
    assert ("Retry-After" in response.headers) == (kind.status in (429, 503))


def test_every_code_is_provoked() -> None:
    assert PROVOKED.keys() | ELSEWHERE == {kind.code for kind in errors.kinds()}


def test_an_output_that_does_not_fit_its_family_is_named(tmp_path: Path) -> None:
    unfitting_bundle(tmp_path, ["cat"])
    error = failed(post(client(models=str(tmp_path))), 502, "model_output_mismatch")
    assert (error["output"], error["found"]) == ("scores", [1, 5, 3])


def test_the_figures_that_help_are_given(tmp_path: Path) -> None:
    error = failed(post(_own(tmp_path, "nothing", max_pixels=100)), 413, "image_too_large")
    assert (error["limit"], error["found"]) == (100, 64 * 48)


def test_a_length_that_is_no_number_is_the_callers_fault(served: Client) -> None:
    for length in ("-1", "+3", "\xb2", "1e3", "9" * 5000):
        failed(served.post("/predict", environ_overrides={"CONTENT_LENGTH": length}), 400, "bad_request")


def test_a_body_of_a_length_that_was_not_declared_is_cut_there(served: Client) -> None:
    stream = BytesIO(picture() + b"more")
    length = {"CONTENT_LENGTH": str(len(picture()))}
    response = served.post("/predict", input_stream=stream, environ_overrides=length)
    assert (response.status_code, stream.read()) == (200, b"more")


def test_a_body_in_chunks_is_stopped_at_the_limit(tmp_path: Path) -> None:
    stream = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    limited = _own(tmp_path, "nothing", max_body_mb=0.001)
    response = limited.post("/predict", input_stream=BytesIO(bytes(100_000)), environ_overrides=stream)
    assert failed(response, 413, "body_too_large")["limit"] == 1000


@contextmanager
def at_work(waiting: Client, count: int) -> Iterator[list[Any]]:
    """`count` requests under way that end when the block does; their replies are in the list afterwards."""
    families.GATE.clear()
    replies: list[Any] = []
    with ThreadPoolExecutor(count) as pool:
        pending = [pool.submit(post, waiting) for _ in range(count)]
        ends_at = monotonic() + 10
        while _load(waiting) < count and monotonic() < ends_at:
            sleep(0.01)
        try:
            yield replies
        finally:
            families.GATE.set()
            replies += [each.result() for each in pending]


def _load(waiting: Client) -> int:
    lines = waiting.get("/metrics").text.splitlines()
    return int(sum(float(line.split()[1]) for line in lines if line.startswith("thinlens_requests_")))


def test_when_the_queue_is_full_the_next_one_is_turned_away_and_the_others_answered(tmp_path: Path) -> None:
    waiting = _own(tmp_path, "waiting", max_concurrency=1)
    families.GATE.set()
    post(waiting)
    with at_work(waiting, 5) as replies:
        response = post(waiting)
        assert int(response.headers["Retry-After"]) >= 1
        assert failed(response, 429, "too_many_requests")["limit"] == 1
        ready = waiting.get("/ready")
        assert (ready.status_code, ready.get_json()["state"]) == (503, "at_capacity")
    assert [reply.status_code for reply in replies] == [200] * 5
    assert waiting.get("/ready").status_code == 200


def test_who_waits_too_long_is_told_that_there_is_no_capacity(tmp_path: Path) -> None:
    bundle(tmp_path, family="tests.families:waiting")
    slow = client(models=str(tmp_path), max_concurrency=1, timeout_s=1)
    families.GATE.set()
    post(slow)
    with at_work(slow, 1):
        response = post(slow)
    failed(response, 503, "at_capacity")
    assert int(response.headers["Retry-After"]) >= 1


def test_who_meets_a_model_that_is_still_being_loaded_is_told_so(tmp_path: Path) -> None:
    families.GATE.clear()
    loading = _own(tmp_path, "waiting", timeout_s=0.5)
    try:
        assert loading.get("/ready").get_json()["state"] == "cold"
        _until(lambda: loading.get("/ready").get_json()["state"] == "warming")
        failed(post(loading), 503, "not_ready")
    finally:
        families.GATE.set()
    _until(lambda: loading.get("/ready").get_json()["state"] == "ready")
    assert post(loading).status_code == 200


def _until(holds: Callable[[], bool], limit_s: float = 10) -> None:
    ends_at = monotonic() + limit_s
    while not holds():
        assert monotonic() < ends_at
        sleep(0.02)


# Models that cannot be used.


def test_ready_starts_the_loading_and_becomes_200(tmp_path: Path) -> None:
    fresh = _own(tmp_path, "nothing")
    first = fresh.get("/ready")
    assert (first.status_code, first.get_json()["state"]) == (503, "cold")
    failed(first, 503, "not_ready")
    _until(lambda: fresh.get("/ready").status_code == 200)
    assert fresh.get("/ready").json == {"state": "ready", "backend": "onnx"}
    assert not post(fresh).get_json()["cold_start"]


Break = Callable[[Path], object]


def _declare(folder: Path, path: tuple[str | int, ...], value: object) -> None:
    declared = json.loads((folder / "model.json").read_text())
    place = declared
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (folder / "model.json").write_text(json.dumps(declared))


_INPUT = ("networks", "detector", "inputs", 0)
_OUTPUT = ("networks", "detector", "outputs", 0)
BROKEN: dict[str, tuple[Break, str]] = {
    "changed weights": (lambda f: (f / "model.onnx").write_bytes(b"other"), "sha256"),
    "missing weights": (lambda f: (f / "model.onnx").unlink(), "cannot read 'model.onnx'"),
    "a folder for weights": (
        lambda f: _declare(f, ("networks", "detector", "artifacts", "onnx", "file"), "."),
        "cannot read '.'",
    ),
    "a wrong dtype": (lambda f: _declare(f, (*_INPUT, "dtype"), "uint8"), "expected dtype float32"),
    "a wrong shape": (lambda f: _declare(f, (*_INPUT, "shape"), [1, 3, 32, 32]), "expected shape [1, 3, 64, 64]"),
    "a wrong input name": (
        lambda f: _declare(f, (*_INPUT, "name"), "x"),
        "there is no 'x' in the graph, only ['image']",
    ),
    "a wrong output shape": (lambda f: _declare(f, (*_OUTPUT, "shape"), [1, 5]), "expected shape [1, 5, 4]"),
    "a wrong output name": (lambda f: _declare(f, (*_OUTPUT, "name"), "x"), "there is no 'x' in the graph"),
    "no JSON": (lambda f: (f / "model.json").write_bytes(b"{"), "own/model.json"),
    "a missing field": (lambda f: (f / "model.json").write_bytes(b"{}"), "`name`"),
    "an unknown field": (lambda f: _declare(f, ("thresholds",), {}), "thresholds: unknown field"),
    "an unknown family": (lambda f: _declare(f, ("family",), "yolo99"), "did you mean 'yolo'"),
    "a family that is not there": (lambda f: _declare(f, ("family",), "tests.families:none"), "cannot load"),
    "a family that raises": (lambda f: _declare(f, ("family",), "tests.families:exploding"), "LookupError"),
    "another backend's file alone": (
        lambda f: _declare(f, ("networks", "detector", "artifacts"), {"triton": {"file": "a", "sha256": "0" * 64}}),
        "nothing for backend 'onnx'",
    ),
    "labels that are not there": (lambda f: _declare(f, ("labels",), "labels.txt"), "cannot read 'labels.txt'"),
    "a file outside the bundle": (
        lambda f: _declare(f, ("networks", "detector", "artifacts", "onnx", "file"), "../model.onnx"),
        "expected a path inside the bundle",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_model_says_why_and_the_other_one_works(how: str, tmp_path: Path) -> None:
    break_, reason = BROKEN[how]
    break_(bundle(tmp_path, "own"))
    bundle(tmp_path, "good")
    both = client(models=str(tmp_path), model="own")
    error = failed(post(both), 503, "model_broken")
    assert reason in error["message"]
    _until(lambda: both.get("/ready").get_json()["state"] == "broken")
    ready = both.get("/ready")
    failed(ready, 503, "model_broken")
    assert reason in ready.get_json()["reason"]
    assert post(both, "/models/good/predict").status_code == 200
    listed = {each["name"]: each for each in both.get("/models").get_json()["models"]}
    assert reason in listed["own"]["reason"]
    assert listed["good"]["ready"]
    assert both.get("/openapi.json").status_code == 200


def test_a_model_that_fails_when_it_is_tried_is_broken(tmp_path: Path) -> None:
    bad = _own(tmp_path, "buggy")
    _until(lambda: bad.get("/ready").get_json()["state"] == "broken")
    assert "LookupError" in failed(bad.get("/ready"), 503, "model_broken")["message"]


def test_two_models_and_no_default_need_a_name(tmp_path: Path) -> None:
    bundle(tmp_path, "a")
    bundle(tmp_path, "b")
    two = client(models=str(tmp_path))
    assert "a, b" in failed(post(two), 404, "model_not_found")["message"]
    assert post(two, "/models/b/predict").get_json()["model"] == "b"


def test_vertex_names_its_own_paths(tmp_path: Path) -> None:
    bundle(tmp_path)
    vertex = client(models=str(tmp_path), health_route="/v1/health", predict_route="/v1/models/m:predict")
    assert post(vertex, "/v1/models/m:predict").status_code == 200
    assert vertex.get("/v1/health").json == {"state": "ready", "backend": "onnx"}
    assert post(vertex).status_code == 200


@pytest.mark.parametrize("path", ["/", "/predict"])
def test_vertex_may_name_a_path_of_ours(path: str, tmp_path: Path) -> None:
    bundle(tmp_path)
    vertex = client(models=str(tmp_path), health_route="/health", predict_route=path)
    assert post(vertex, path).get_json()["model"] == "own"
    assert vertex.get("/health").json == {"state": "ready", "backend": "onnx"}


# What is written down.


def test_a_request_is_one_json_line_without_what_is_the_callers_own(
    served: Client, photo: bytes, capsys: pytest.CaptureFixture[str], files: str
) -> None:
    handler = logging.StreamHandler(stream := _Lines())
    from shared.web import logs

    handler.setFormatter(logs.JsonLines())
    logs.LOGGER.addHandler(handler)
    try:
        secret = {"X-API-Key": "hush", "Authorization": "Bearer hush", "X-Request-Id": "line-1"}
        served.get(
            "/predict", query_string={"image_url": f"{files}/photo-hush.jpg", "image_name": "hush"}, headers=secret
        )
        served.post("/predict?colour=hush", data=photo, headers=secret)
    finally:
        logs.LOGGER.removeHandler(handler)
    first, second = [json.loads(line) for line in stream.lines]
    assert (first["route"], first["status"], first["request_id"], first["model"]) == (
        "/predict", 200, "line-1", "coco-ssd-mobilenet-v2",
    )  # fmt: skip
    assert first["timings_ms"].keys() >= {"fetch", "decode", "infer"}
    assert (second["status"], second["code"]) == (400, "unknown_parameter")
    assert "hush" not in "".join(stream.lines)
    assert max(map(len, stream.lines)) < 1000


class _Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines += [line for line in text.splitlines() if line]

    def flush(self) -> None:
        pass


def test_the_forms_page_shows_what_was_found_and_what_went_wrong(served: Client, photo: bytes) -> None:
    good = served.post("/", **in_form(photo))
    assert (good.status_code, good.mimetype) == (200, "text/html")
    assert "person" in good.text
    bad = served.post("/", **in_form(b"no picture"))
    assert (bad.status_code, bad.mimetype) == (415, "text/html")
    assert "not_an_image" in bad.text


def test_the_forms_page_keeps_the_headers_of_a_failure(tmp_path: Path) -> None:
    response = _own(tmp_path, "exploding").post("/", **in_form(picture()))
    assert (response.status_code, response.mimetype, response.headers["Retry-After"]) == (503, "text/html", "30")
    assert response.headers["Content-Length"] == str(len(response.data))


def test_hostile_text_is_not_html_on_the_forms_page(served: Client) -> None:
    response = served.post("/", **in_form(picture(), labels='["<script>alert(1)</script>"]'))
    assert response.status_code == 400
    assert "<script>" not in response.text
