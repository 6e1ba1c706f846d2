"""Every command and every example of README.md, as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shared.manifest import Model
from tests import readme, servers

ROOT = servers.ROOT
_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
TEXT = readme.README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
SERVING = [block for block in BLOCKS if block.startswith(("make run", "functions-framework", "PORT=8080 gunicorn"))]
CALLS = [block for block in BLOCKS if "localhost:8080" in block]
MAKING = [block for block in BLOCKS if "describe" in block]
SERVING_OWN = "THINLENS_MODELS=my-models make run\n"
REPOSITORIES = [block for block in BLOCKS if block.startswith("python -m model_server triton")]
OTHERS = [SERVING_OWN, "make test\n", "make stage BUNDLE=coco-ssd-mobilenet-v2 STAGE=build/stage\n"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with a photo in it."""
    shutil.copy(ROOT / "shared/web/static/samples/street.jpg", tmp_path / "photo.jpg")
    return tmp_path


@pytest.fixture(scope="module")
def fetching_server() -> Iterator[str]:
    """A server that may fetch pictures from the loopback, its own samples among them."""
    with servers.container({"THINLENS_URL_FETCH": "127.0.0.1"}) as server:
        yield server.url


def test_every_shell_block_is_one_of_those_run_here() -> None:
    assert sorted(SERVING + CALLS + MAKING + REPOSITORIES + OTHERS) == sorted(BLOCKS)


def test_the_generated_parts_are_as_the_code_has_them() -> None:
    assert readme.with_sections(TEXT) == TEXT, "run: python -m tests.readme"


@pytest.mark.parametrize("block", CALLS)
def test_the_calls_answer_with_what_is_in_the_street(block: str, fetching_server: str, folder: Path) -> None:
    script = block.replace("localhost:8080", fetching_server.removeprefix("http://"))
    script = script.replace("https://example.com/photo.jpg", f"{fetching_server}/static/samples/street.jpg")
    output = _shell(script, folder)
    if picture := re.search(r"-o (\S+\.png)", script):
        assert (folder / picture[1]).read_bytes().startswith(b"\x89PNG")
        return
    reply = json.loads(output)
    reply = reply["predictions"][0] if '"instances"' in script else reply
    if "mobile-sam" in script:
        assert all(found["mask"]["size"] == [743, 1280] and found["area"] for found in reply["predictions"])
    if "/mobile-sam/" in script:
        assert max(found["score"] for found in reply["predictions"]) > 0.9
        return
    assert {"person", "car"} <= {found["label"] for found in reply["predictions"]}


@pytest.mark.parametrize("block", SERVING)
def test_the_servers_start_and_find_people(block: str, folder: Path) -> None:
    with _served(block) as server:
        reply = _ask(server, folder)
    assert "person" in {found["label"] for found in reply["predictions"]}


def test_the_recipe_makes_a_bundle_that_is_found_good(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(_yolo(classes=2))
    (folder / "labels.txt").write_text("cat\ndog\n")
    (folder / "model_server").symlink_to(ROOT / "model_server")
    (folder / "shared").symlink_to(ROOT / "shared")
    for block in MAKING:
        _shell(block, folder)
    written = msgspec.json.decode((folder / "my-models/my-detector/model.json").read_bytes(), type=Model)
    assert written.networks == _example(sha256=written.networks["detector"].artifacts["onnx"].sha256).networks
    assert written.preprocess == _example().preprocess
    with _served(SERVING_OWN.replace("my-models", f"{folder}/my-models")) as server:
        assert _ask(server, folder)["model"] == "my-detector"


def test_the_stage_target_lays_a_folder(folder: Path) -> None:
    _shell(f"make -C {ROOT} stage STAGE={folder}/stage VENV={sys.prefix}", folder)
    assert (folder / "stage/function_app.py").is_file()


def test_the_repositories_are_written(folder: Path) -> None:
    (folder / "model_server").symlink_to(ROOT / "model_server")
    (folder / "shared").symlink_to(ROOT / "shared")
    for block in REPOSITORIES:
        _shell(block, folder)
    assert (folder / "build/triton/coco-ssd-mobilenet-v2.detector/config.pbtxt").is_file()
    assert (folder / "build/tfserving/coco-ssd-mobilenet-v2.detector/1/saved_model.pb").is_file()


def test_make_knows_every_target_that_the_readme_names(folder: Path) -> None:
    for target in set(re.findall(r"`make ([a-z-]+)`", TEXT)) | {"test-page", "test-azure", "test-export", "soak"}:
        _shell(f"make -C {ROOT} --dry-run {target} PYTHON313=python3", folder)


def _example(sha256: str = "0" * 64) -> Model:
    found = re.search(r"<!-- model.json -->\n```json\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    return msgspec.json.decode(found[1].replace("0" * 64, sha256), type=Model)


def _yolo(classes: int) -> bytes:
    """A graph with the tensors of a YOLOv8 export at 640, which finds nothing."""
    zeros = numpy_helper.from_array(np.zeros((1, 4 + classes, 8400), np.float32), "zeros")
    least = helper.make_node("ReduceMin", ["images"], ["least"], keepdims=0)
    graph = helper.make_graph(
        [least, helper.make_node("Add", ["zeros", "least"], ["output0"])],
        "yolo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 640, 640])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 4 + classes, 8400])],
        [zeros],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _served(block: str) -> servers.Server:
    """The server that a block of the README starts, on a free port of the loopback."""
    port = servers.free_port()
    script = block.replace("8080", str(port)).replace("gunicorn", "BIND=127.0.0.1 gunicorn")
    script = script.replace("functions-framework", "functions-framework --host 127.0.0.1")
    script = script.replace("make run", f"make run VENV={sys.prefix}")
    environ = servers.environ({"PORT": str(port), "PATH": _PATH})
    return servers.Server(["bash", "-c", f"exec env {script}"], port, environ, ROOT)


def _ask(server: servers.Server, folder: Path) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(_shell(f"curl -s -F image=@photo.jpg {server.url}/predict", folder))
    return reply


def _shell(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": _PATH},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
