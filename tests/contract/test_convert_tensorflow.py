"""TensorFlow's forms of a network, each made of another: the same detections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")

from model_server.catalog import SHIPPED
from model_server.cli import main
from model_server.conversion.targets import BACKENDS
from model_server.manifests import problems

pytestmark = [
    pytest.mark.export,
    # TensorFlow's own use of deprecated names is not ours to mend.
    pytest.mark.filterwarnings("default"),
]
SAVED_MODEL = SHIPPED / "coco-ssd-mobilenet-v2"


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "frozen"
    assert main(["convert", str(SAVED_MODEL), "--to", "frozen", "--into", str(out)]) == 0
    return out


def artifacts(folder: Path) -> dict[str, Any]:
    assert problems(folder) == []
    declared: dict[str, Any] = json.loads((folder / "model.json").read_bytes())["networks"]["detector"]["artifacts"]
    return declared


def test_a_saved_model_is_frozen(frozen: Path) -> None:
    assert artifacts(frozen)["tensorflow"]["file"] == "frozen_graph.pb"


@pytest.mark.parametrize(
    ("to", "file"),
    [("saved-model", "saved_model/saved_model.pb"), ("onnx", "model.onnx"), ("litert", "model.tflite")],
)
def test_a_frozen_graph_becomes(to: str, file: str, frozen: Path, tmp_path: Path) -> None:
    if to not in BACKENDS:
        pytest.skip(f"NOT TESTED: no backend runs {to}")
    assert main(["convert", str(frozen), "--to", to, "--into", str(tmp_path / "new")]) == 0
    assert artifacts(tmp_path / "new")[BACKENDS[to]]["file"] == file


def test_a_saved_model_becomes_onnx_in_int8_at_once(tmp_path: Path) -> None:
    samples = Path("shared/web/static/samples").resolve()
    options = ["--from", "saved-model", "--int8", "--calibration", str(samples)]
    assert main(["convert", str(SAVED_MODEL), "--to", "onnx", "--into", str(tmp_path / "new"), *options]) == 0
    assert artifacts(tmp_path / "new")["onnx"]["note"].startswith("int8: ")
