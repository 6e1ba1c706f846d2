"""A function before a model server, in an environment that has no inference framework at all.

`make test-servers` makes it from requirements.txt less onnxruntime.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from model_server.triton.config import Serving
from model_server.triton.repository import write_repository
from tests.agreement import agree
from tests.clients import client
from tests.model_servers import ModelServer, server_python, triton
from tests.servers import ROOT, environ

pytestmark = pytest.mark.servers

BUNDLE = ROOT / "model_server" / "models" / "coco-ssd-mobilenet-v2"
STREET = ROOT / "shared" / "web" / "static" / "samples" / "street.jpg"
FRAMEWORKS = {"onnxruntime", "torch", "tensorflow", "grpc", "gevent"}
PIXELS = {"numpy", "PIL", "tritonclient", "requests", "shared.images", "shared.tasks.detection", "shared.render"}
_ASKED = """
import io, json, sys
from pathlib import Path
from shared.settings import Settings
from shared.web.application import Application
application = Application(Settings.load())
photo = Path(sys.argv[1]).read_bytes()
replies = []
for path, accept in (("/ready", "*/*"), ("/predict", "application/json"), ("/predict", "image/jpeg")):
    environ = {"REQUEST_METHOD": "POST" if path == "/predict" else "GET", "PATH_INFO": path, "QUERY_STRING": "",
               "CONTENT_TYPE": "image/jpeg", "CONTENT_LENGTH": str(len(photo)), "wsgi.input": io.BytesIO(photo),
               "HTTP_ACCEPT": accept}
    statuses = []
    body = b"".join(application(environ, lambda status, headers, error=None: statuses.append(status)))
    replies.append([statuses[0], body.decode("latin-1") if accept != "image/jpeg" else body[:3].hex()])
print(json.dumps([replies, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    repository = tmp_path_factory.mktemp("triton") / "models"
    write_repository([BUNDLE], repository, Serving(platform="python", forward="encoded"))
    with triton(repository) as running:
        yield running


def asked(server: ModelServer, forward: str) -> tuple[dict[str, Any], str, set[str]]:
    """What a process without frameworks answers to a photo, the first bytes of the drawn one, and what it imported."""
    settings = {
        "THINLENS_BACKEND": "triton",
        "THINLENS_BACKEND_URL": server.http_url,
        "THINLENS_FORWARD": forward,
        "THINLENS_LOG_LEVEL": "error",
    }
    command = [server_python("thin"), "-c", _ASKED, str(STREET)]
    result = subprocess.run(command, cwd=ROOT, env=environ(settings), capture_output=True, text=True, check=True)
    replies, modules = json.loads(result.stdout)
    assert [status for status, _ in replies[1:]] == ["200 OK"] * 2
    return json.loads(replies[1][1]), replies[2][1], set(modules)


@pytest.mark.parametrize("forward", ["tensor", "encoded"])
def test_the_answer_is_that_of_the_embedded_model(forward: str, server: ModelServer) -> None:
    reply, drawn, _ = asked(server, forward)
    embedded = client().post("/predict", data=STREET.read_bytes(), content_type="image/jpeg").get_json()
    assert (reply["backend"], drawn) == ("triton", "ffd8ff")
    agree(embedded["predictions"], reply["predictions"])


def test_tensors_are_forwarded_without_a_framework(server: ModelServer) -> None:
    assert not asked(server, "tensor")[2] & (FRAMEWORKS | {"requests"})


def test_pictures_are_forwarded_without_pixels(server: ModelServer) -> None:
    assert not asked(server, "encoded")[2] & (FRAMEWORKS | PIXELS)


def test_the_environment_has_no_framework() -> None:
    script = f"import importlib.util as u; print([n for n in {sorted(FRAMEWORKS - {'grpc'})} if u.find_spec(n)])"
    found = subprocess.run([server_python("thin"), "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_framework_that_is_missing_is_named_with_what_installs_it() -> None:
    assert "pip install -r requirements.txt" in _broken({"THINLENS_BACKEND": "onnx"})


def _broken(settings: dict[str, str]) -> str:
    script = (
        "from shared.service import Service\nfrom shared.settings import Settings\n"
        "served = Service(Settings.load()).find(None)\nserved.open()\nprint(served.reason)"
    )
    command = [server_python("thin"), "-c", script]
    return subprocess.run(command, cwd=ROOT, env=environ(settings), capture_output=True, text=True, check=True).stdout
