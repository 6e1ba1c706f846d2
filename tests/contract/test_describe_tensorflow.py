"""`describe` for SavedModels and frozen graphs: signatures, files beside, tensors whose shape is not said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from model_server.cli import main
from shared.manifest import read_bundle
from shared.service import Service
from shared.settings import Settings

tf: Any = pytest.importorskip("tensorflow")

pytestmark = [
    pytest.mark.tensorflow,
    # TensorFlow's own use of deprecated names is not ours to mend.
    pytest.mark.filterwarnings("default"),
]

TF = ["--family", "tf-detection", "--labels", "cat,dog"]
FREE = (1, None, None, 3)


def saved_model(folder: Path, shape: Any = FREE, signatures: tuple[str, ...] = ("serving_default",)) -> Path:
    """image [1, H, W, 3] uint8 -> boxes [1, 5, 4] and scores [1, 5, 2], a variable and an asset."""
    module = tf.Module()
    module.weight = tf.Variable([[0.5, 0.25]] * 5)
    (folder / "names.txt").write_text("cat\ndog\n")
    module.names = tf.saved_model.Asset(str(folder / "names.txt"))

    def answer(image: Any) -> dict[str, Any]:
        least = tf.reduce_min(tf.cast(image, tf.float32)) * 0.0
        return {"boxes": tf.reshape(tf.range(20.0) / 20.0, (1, 5, 4)) + least, "scores": module.weight[None] + least}

    function = tf.function(answer, input_signature=[tf.TensorSpec(shape, tf.uint8, "image")]).get_concrete_function()
    tf.saved_model.save(module, str(folder / "own"), signatures=dict.fromkeys(signatures, function))
    (folder / "names.txt").unlink()
    return folder / "own"


def frozen_graph(folder: Path, shape: Any = FREE) -> Path:
    """The same without variables; `boxes` of a rank that the graph does not say."""
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, shape, name="image")
        least = tf.reduce_min(tf.cast(image, tf.float32)) * 0.0
        rank = tf.cast(least, tf.int32) + tf.constant([1, 5, 4])
        tf.reshape(tf.range(20.0) / 20.0 + least, rank[: tf.cast(least, tf.int32) + 3], name="boxes")
        tf.identity(tf.constant([[[0.5, 0.25]] * 5]) + least, name="scores")
    path = folder / "own.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def described(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, Any], str]:
    """The network of the draft, and what is to be looked over."""
    capsys.readouterr()
    assert main(["describe", *map(str, arguments)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    network: dict[str, Any] = json.loads(printed.out)["networks"]["detector"]
    return network, printed.err


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The line that a command fails with; TensorFlow writes more to the same place."""
    assert main(["describe", *map(str, arguments)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("model_server: ")]
    return line


def shapes(tensors: list[dict[str, Any]]) -> dict[str, list[int | None]]:
    return {tensor["name"]: tensor["shape"] for tensor in tensors}


def state(folder: Path) -> tuple[str, str | None]:
    """How the bundle stands once TensorFlow has run it."""
    served = Service(Settings(models=str(folder), backend="tensorflow")).find(None)
    served.open(warm_up=True)
    return served.state, served.reason


def test_a_described_saved_model_is_a_bundle_that_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(saved_model(tmp_path)), *TF, "--into", str(tmp_path)]) == 0
    assert "model.json: written" in capsys.readouterr().out
    assert state(tmp_path) == ("ready", None)
    network = read_bundle(tmp_path).model.networks["detector"]
    assert [file.file for file in network.artifacts["tensorflow"].files] == [
        "own/saved_model.pb",
        "own/variables/variables.data-00000-of-00001",
        "own/variables/variables.index",
        "own/assets/names.txt",
    ]


@pytest.mark.parametrize("given", ["own", "own/saved_model.pb"])
def test_a_saved_model_is_its_folder_or_its_file(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_model(tmp_path)
    network, notes = described(capsys, tmp_path / given, *TF)
    assert shapes(network["inputs"]) == {"image": [1, None, None, 3]}
    assert shapes(network["outputs"]) == {"boxes": [1, 5, 4], "scores": [1, 5, 2]}
    assert f"model.json belongs into {tmp_path}, from where it names the files" in notes


def test_the_one_signature_is_taken_whatever_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, _ = described(capsys, saved_model(tmp_path, signatures=("detect",)), *TF)
    assert network["artifacts"]["tensorflow"]["signature"] == "detect"


def test_of_several_signatures_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved_model(tmp_path, signatures=("detect", "find"))
    assert "the file has several: name one of detect, find" in failed(capsys, folder, *TF)
    assert "there is no 'other' in the file, only detect, find" in failed(capsys, folder, *TF, "--signature", "other")
    network, notes = described(capsys, folder, *TF, "--signature", "find")
    assert network["artifacts"]["tensorflow"]["signature"] == "find"
    assert "of several signatures, 'find' is the one called" in notes


def test_a_shape_that_the_graph_leaves_open_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved_model(tmp_path, shape=None)
    assert "the file does not say the shape of 'image': give --input" in failed(capsys, folder, *TF)
    network, _ = described(capsys, folder, *TF, "--input", "image=uint8[1,300,300,3]")
    assert shapes(network["inputs"]) == {"image": [1, 300, 300, 3]}


def test_a_shape_that_the_graph_says_is_not_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = failed(capsys, saved_model(tmp_path), *TF, "--input", "image=uint8[1,300,300,3]")
    assert "'image' is no input whose shape the file leaves open" in error


def test_an_encoded_picture_is_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    function = tf.function(lambda data: {"size": tf.strings.length(data)})
    concrete = function.get_concrete_function(tf.TensorSpec((1,), tf.string, "data"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "own"), signatures=concrete)
    assert "tensor 'data' is string; expected one of bool, uint8" in failed(capsys, tmp_path / "own", *TF)


@pytest.mark.parametrize("content", [b"garbage" * 99, b""])
@pytest.mark.parametrize("file", ["own/saved_model.pb", "own.pb"])
def test_a_damaged_file_is_told(file: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    assert f"model_server: {path}: " in failed(capsys, path, *TF)


def test_a_described_frozen_graph_is_a_bundle_that_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", str(frozen_graph(tmp_path)), *TF, "--into", str(tmp_path)]) == 0
    assert "outputs are the tensors that nothing in the graph takes" in capsys.readouterr().err
    assert state(tmp_path) == ("ready", None)


def test_an_output_of_unknown_rank_has_the_axes_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, _ = described(capsys, frozen_graph(tmp_path), *TF)
    assert shapes(network["inputs"]) == {"image": [1, None, None, 3]}
    assert shapes(network["outputs"]) == {"boxes": [None, None, None], "scores": [1, 5, 2]}


def test_outputs_of_a_frozen_graph_may_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = frozen_graph(tmp_path)
    network, _ = described(capsys, file, *TF, "--output", "scores:0", "--output", "boxes")
    assert list(shapes(network["outputs"])) == ["scores:0", "boxes"]
    assert "there is no 'x' in the graph; nothing takes boxes, scores" in failed(capsys, file, *TF, "--output", "x")
    assert "a frozen graph has none" in failed(capsys, file, *TF, "--signature", "x")


def test_a_graph_of_many_ends_has_its_outputs_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, FREE, name="image")
        for at in range(13):
            tf.identity(image, name=f"end{at}")
    (tmp_path / "own.pb").write_bytes(graph.as_graph_def().SerializeToString())
    assert "name those of the 13 tensors that are to be outputs: end0, " in failed(capsys, tmp_path / "own.pb", *TF)


# --- added to a bundle


def test_another_export_of_the_same_network_is_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["describe", str(frozen_graph(tmp_path)), *TF, "--into", str(tmp_path)])
    folder = saved_model(tmp_path)
    assert "model.json: detector has own.pb for tensorflow" in failed(capsys, folder, "--add-to", tmp_path)
    assert main(["describe", str(folder), "--add-to", str(tmp_path), "--replace"]) == 0
    assert read_bundle(tmp_path).model.networks["detector"].artifacts["tensorflow"].file == "own/saved_model.pb"


def test_another_signature_is_added_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["describe", str(frozen_graph(tmp_path)), *TF, "--into", str(tmp_path)])
    given = [saved_model(tmp_path, signatures=("detect",)), "--add-to", tmp_path, "--replace"]
    assert "there is no 'serving_default' in the SavedModel, only ['detect']" in failed(capsys, *given)
    assert main(["describe", *map(str, given), "--signature", "detect"]) == 0
    assert state(tmp_path) == ("ready", None)


def test_a_saved_model_that_differs_is_not_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["describe", str(frozen_graph(tmp_path)), *TF, "--into", str(tmp_path)])
    folder = saved_model(tmp_path, shape=(1, 300, 300, 3))
    error = failed(capsys, folder, "--add-to", tmp_path, "--replace")
    assert "not added: own: networks.detector.inputs: 'image': expected shape [1, 300, 300, 3] as in the graph" in error


# --- LiteRT


@pytest.fixture
def tflite(tmp_path: Path) -> Path:
    pytest.importorskip("ai_edge_litert")
    module = tf.Module()
    function = tf.function(lambda image: {"boxes": image[:, :5, :1, 0] + 1.0, "scores": image[:, :5, :2, 0]})
    concrete = function.get_concrete_function(tf.TensorSpec((1, 32, 48, 3), tf.float32, "image"))
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"detect": concrete})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"), signature_keys=["detect"])
    (tmp_path / "own.tflite").write_bytes(converter.convert())
    shutil.rmtree(tmp_path / "saved")
    return tmp_path / "own.tflite"


def test_a_tflite_file_is_described(tflite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, _ = described(capsys, tflite, *TF)
    assert shapes(network["inputs"]) == {"image": [1, 32, 48, 3]}
    assert shapes(network["outputs"]) == {"boxes": [1, 5, 1], "scores": [1, 5, 2]}
    assert network["artifacts"]["litert"]["signature"] == "detect"


def test_a_tflite_file_without_a_signature_is_refused(tflite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    function = tf.function(lambda image: image + 1.0).get_concrete_function(tf.TensorSpec((1, 3), tf.float32))
    tflite.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function]).convert())
    assert "the file has none, which it needs" in failed(capsys, tflite, *TF)


def test_a_damaged_tflite_file_is_told(tflite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tflite.write_bytes(b"garbage" * 99)
    assert "LiteRT cannot open it" in failed(capsys, tflite, *TF)
