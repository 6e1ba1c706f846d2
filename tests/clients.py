"""The web application in this process, on the bundled model or on small ones, and what its failures must look like."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from PIL import Image as Pillow
from werkzeug.test import Client, TestResponse

from shared.settings import Settings
from shared.web.application import Application
from tests.bundles import Output, manifest
from tests.servers import ROOT

_BOXES, _SCORES = [1, 5, 4], [1, 5, 3]


def client(**settings: Any) -> Client:
    return Client(Application(Settings(**settings)))


@cache
def picture(format_: str = "PNG", hw: tuple[int, int] = (48, 64)) -> bytes:
    """A grey picture."""
    buffer = BytesIO()
    Pillow.new("RGB", hw[::-1], (128, 128, 128)).save(buffer, format_)
    return buffer.getvalue()


def post(to: Client, path: str = "/predict", **rest: Any) -> TestResponse:
    """A small picture to `path`, as image/png."""
    return to.post(path, **({"data": picture(), "content_type": "image/png"} | rest))


def bundle(root: Path, name: str = "own", family: str = "tests.families:nothing", **changed: Any) -> Path:
    """A bundle whose graph gives five boxes and scores of three classes, all zero, for any picture of 64 x 64.

    `changed` replaces fields of the declared network, before its files are written.
    """
    folder = root / name
    folder.mkdir(parents=True)
    data = _graph()
    outputs: list[Output] = [("boxes", list(_BOXES)), ("scores", list(_SCORES))]
    declared = manifest(
        family,
        outputs,
        ["cat", "dog", "owl"],
        preprocess={"layout": "NCHW"},
        sha256=hashlib.sha256(data).hexdigest(),
    ) | {"name": name}
    declared["networks"]["detector"] |= changed
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(json.dumps(declared))
    return folder


def unfitting_bundle(root: Path, labels: list[str]) -> Path:
    """A bundle whose scores have three classes, which only its answer shows; `labels` are of another number."""
    outputs = [
        {"name": "boxes", "dtype": "float32", "shape": [1, None, 4]},
        {"name": "scores", "dtype": "float32", "shape": [1, None, None]},
    ]
    folder = bundle(root, family="tf-detection", outputs=outputs)
    declared = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(declared | {"labels": labels}))
    return folder


@cache
def _graph() -> bytes:
    zeros = [
        helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.FLOAT, shape, [0.0] * size))
        for name, shape, size in (("boxes", _BOXES, 20), ("scores", _SCORES, 15))
    ]
    graph = helper.make_graph(
        zeros,
        "nothing",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, _BOXES),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, _SCORES),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def failed(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The `error` of the reply, once it has been found to be what every failure is."""
    assert (response.status_code, response.get_json()["error"]["code"] if response.is_json else response.text) == (
        status,
        code,
    )
    error: dict[str, Any] = response.get_json()["error"]
    check_failure(error, response.headers)
    return error


def check_failure(error: dict[str, Any], headers: Any) -> None:
    assert error["message"]
    assert error["request_id"] == headers["X-Request-Id"]
    told = json.dumps(error)
    assert not any(place in told for place in (str(ROOT), "/tmp", "/secret", "Traceback", "site-packages", ".py"))
