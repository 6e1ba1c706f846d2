"""What the application says where memory is short, and that it forgets no request's."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from werkzeug.test import Client

from shared.host import memory
from shared.settings import Settings
from shared.web.application import Application
from tests.clients import bundle, failed, picture, post

_ROOM_MB = 150


@cache
def large() -> bytes:
    """Fifty million pixels in few bytes."""
    file = BytesIO()
    Pillow.new("RGB", (8000, 6250), (90, 120, 150)).save(file, "PNG", compress_level=1)
    return file.getvalue()


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """With room for small pictures only."""
    bundle(tmp_path, family="tf-detection")
    limit_mb = int((memory().now_mb + _ROOM_MB) / 0.94)
    return Application(Settings(models=str(tmp_path), memory_limit_mb=limit_mb))


def granted(application: Application) -> int:
    return application.service.memory._granted_bytes


def test_a_picture_that_never_fits_is_refused_with_the_figures(application: Application) -> None:
    error = failed(post(Client(application), data=large()), 413, "out_of_memory")
    assert 0 < error["limit"] < error["found"]
    assert f"{error['found']} MB" in error["message"]


def test_a_body_that_never_fits_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bundle(tmp_path)
    limit_mb = int((memory().now_mb + 2 * _ROOM_MB) / 0.94)
    to = Client(Application(Settings(models=str(tmp_path), memory_limit_mb=limit_mb, max_body_mb=1000)))
    body = BytesIO(bytes(1_500_000 * _ROOM_MB))
    reply = to.post("/predict", input_stream=body, content_length=len(body.getvalue()), content_type="image/png")
    assert failed(reply, 413, "out_of_memory")["found"] == 3 * _ROOM_MB


def test_each_instance_that_does_not_fit_is_told_so(application: Application) -> None:
    instances = [{"image_base64": b64encode(data).decode()} for data in (picture(), large(), picture())]
    told: list[dict[str, Any]] = (
        Client(application).post("/predict", json={"instances": instances}).get_json()["predictions"]
    )
    assert [one.get("error", {}).get("code") for one in told] == [None, "out_of_memory", None]


def test_nothing_stays_reserved_once_replies_are_sent(application: Application) -> None:
    to = Client(application)
    cases: list[dict[str, Any]] = [
        {},
        {"data": large()},
        {"data": b"nonsense"},
        {"path": "/predict?format=png"},
        {"path": "/predict?score_threshold=x"},
        {"data": b"{", "content_type": "application/json"},
        {"data": json.dumps({"image_base64": b64encode(picture()).decode()}), "content_type": "application/json"},
        {"data": {"image": (BytesIO(picture()), "x.png")}, "content_type": "multipart/form-data"},
        {"path": "/nowhere"},
    ]
    statuses = []
    for case in cases:
        with post(to, **case) as reply:
            statuses.append(reply.status_code)
            reply.get_data()
    assert statuses == [200, 413, 415, 200, 400, 400, 200, 200, 404]
    assert granted(application) == 0


def test_a_reply_is_counted_until_it_is_closed(application: Application) -> None:
    reply = post(Client(application), path="/predict?format=png", buffered=False)
    assert granted(application) == reply.calculate_content_length()
    reply.close()
    assert granted(application) == 0
