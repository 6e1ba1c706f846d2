"""The Azure door as azure-functions of this Python sees it: what it indexes, and what its function answers."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from tests import servers

_URL = "https://thinlens.azurewebsites.net"
_DRIVER = servers.ROOT / "tests" / "azure_app.py"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    mimetype: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _asked(*requests: dict[str, Any], **settings: str) -> tuple[list[dict[str, Any]], list[Reply]]:
    """The functions that are indexed, and the replies to the requests."""
    done = subprocess.run(
        [sys.executable, str(_DRIVER), str(servers.APP / "function_app.py")],
        input=json.dumps(requests),
        env=servers.environ(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answered = json.loads(done.stdout)
    replies = [Reply(**{**reply, "body": b64decode(reply["body"])}) for reply in answered["replies"]]
    return answered["functions"], replies


def _post(photo: bytes, **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"method": "POST", "url": f"{_URL}/predict", "headers": named, "body": b64encode(photo).decode()}


def _get(path: str, method: str = "GET", **headers: str) -> dict[str, Any]:
    return {"method": method, "url": _URL + path, "headers": headers}


def test_the_folder_is_no_package() -> None:
    # The worker imports `function_app` by its bare name: a package of that name would win over the module.
    assert not (servers.APP / "__init__.py").exists()


def test_one_function_takes_every_path_and_method() -> None:
    functions, _ = _asked()
    (trigger,) = (binding for binding in functions[0]["bindings"] if binding["type"] == "httpTrigger")
    assert len(functions) == 1
    assert trigger["route"] == "{*path}"
    assert set(trigger["methods"]) == {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


@pytest.mark.parametrize("level", ["anonymous", "function", "admin"])
def test_the_auth_level_is_the_setting(level: str) -> None:
    functions, _ = _asked(THINLENS_AZURE_AUTH_LEVEL=level)
    assert [b["authLevel"].lower() for b in functions[0]["bindings"] if b["type"] == "httpTrigger"] == [level]


def test_the_host_routes_without_a_prefix() -> None:
    host = json.loads((servers.APP / "host.json").read_text())
    assert host["extensions"]["http"]["routePrefix"] == ""


@pytest.fixture(scope="module")
def replies(photo: bytes) -> dict[str, Reply]:
    asked = {
        "raw": _post(photo, Content_Type="image/jpeg"),
        "dechunked": _post(photo, content_type="image/jpeg", transfer_encoding="chunked"),
        "drawn": _post(photo, Content_Type="image/jpeg", ACCEPT="image/png"),
        "root": _get("/"),
        "root of the host": _get(""),
        "head": _get("/health", "HEAD"),
        "nothing": _post(b""),
        "identified": _get("/health", **{"x-request-id": "caller-1"}),
        "encoded": _get("/models/coco%2Dssd-mobilenet-v2"),
        "beyond ASCII": _get("/mod%C3%A8les/%E6%9D%B1"),
        "with a key": _post(photo) | {"url": f"{_URL}/predict?code=secret&clientId=default"},
        "twice": _get("/predict?score_threshold=0&score_threshold=1"),
        "refused": _get("/predict", "DELETE"),
    }
    _, answered = _asked(*asked.values())
    return dict(zip(asked, answered, strict=True))


def test_a_photo_gives_predictions(replies: dict[str, Reply]) -> None:
    assert {"person", "car"} <= {found["label"] for found in replies["raw"].json["predictions"]}


def test_a_body_whose_chunks_the_front_end_gathered_is_read(replies: dict[str, Reply]) -> None:
    assert replies["dechunked"].json["predictions"] == replies["raw"].json["predictions"]


def test_a_picture_comes_back_as_bytes_of_its_type(replies: dict[str, Reply]) -> None:
    drawn = replies["drawn"]
    with Image.open(BytesIO(drawn.body)) as image:
        assert (drawn.mimetype, drawn.headers["Content-Type"], image.format) == ("image/png", "image/png", "PNG")


@pytest.mark.parametrize("root", ["root", "root of the host"])
def test_the_root_is_the_page(replies: dict[str, Reply], root: str) -> None:
    assert (replies[root].status, replies[root].headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_head_has_no_body(replies: dict[str, Reply]) -> None:
    assert (replies["head"].status, replies["head"].body) == (200, b"")


def test_a_request_without_a_body_is_told_so(replies: dict[str, Reply]) -> None:
    assert (replies["nothing"].status, replies["nothing"].json["error"]["code"]) == (400, "no_image")


def test_headers_go_both_ways_whatever_their_case(replies: dict[str, Reply]) -> None:
    assert replies["identified"].headers["X-Request-Id"] == "caller-1"


def test_encoded_characters_of_the_path_are_decoded(replies: dict[str, Reply]) -> None:
    assert replies["encoded"].json["name"] == "coco-ssd-mobilenet-v2"


def test_a_path_beyond_ascii_is_merely_unknown(replies: dict[str, Reply]) -> None:
    assert replies["beyond ASCII"].status == 404


def test_azures_own_query_parameters_are_let_pass(replies: dict[str, Reply]) -> None:
    assert replies["with a key"].json["predictions"] == replies["raw"].json["predictions"]


def test_a_parameter_given_twice_arrives_twice(replies: dict[str, Reply]) -> None:
    assert "twice" in replies["twice"].json["error"]["message"]


def test_a_refused_method_names_the_others(replies: dict[str, Reply]) -> None:
    assert "POST" in replies["refused"].headers["Allow"]


def test_a_reply_of_503_keeps_its_body_and_the_time_to_come_back(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{}")
    _, (reply,) = _asked(_get("/ready"), THINLENS_MODELS=str(tmp_path))
    assert (reply.status, reply.json["state"]) == (503, "broken")
    assert int(reply.headers["Retry-After"]) > 0
