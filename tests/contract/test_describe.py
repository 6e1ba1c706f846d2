"""`describe`: drafts of model.json from ONNX files, what it refuses, and files added to a bundle."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_server.catalog import SHIPPED
from model_server.cli import main
from model_server.describe import families
from model_server.describe.usual import preprocess
from model_server.manifests import problems
from shared import tasks
from shared.artifacts import sha256_of
from shared.manifest import read_bundle
from tests import mask_graphs
from tests.bundles import Output, bundle
from tests.graphs import Input, write_bundle

pytest.importorskip("onnxruntime")

DEFAULT = "coco-ssd-mobilenet-v2"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the shipped bundle that a test may spoil."""
    folder = tmp_path / DEFAULT
    shutil.copytree(SHIPPED / DEFAULT, folder, ignore=shutil.ignore_patterns(".*"))
    return folder


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A bundle of one ONNX file, which finds the red, the green and the blue thing."""
    return write_bundle(tmp_path / "colours", "yolo v5", Input((96, 160)), resize="letterbox")


def changed(folder: Path, change: Any) -> None:
    path = folder / "model.json"
    declared = json.loads(path.read_bytes())
    change(declared)
    path.write_text(json.dumps(declared))


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command fails with."""
    assert main(["describe", *map(str, arguments)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


# --- a new model.json


def test_a_described_file_is_a_bundle_that_passes_the_check(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = own / "labels.txt"
    labels.write_text("\n".join(label or "" for label in read_bundle(own).labels) + "\n")
    main(["describe", str(own / "model.onnx"), "--family", "tf-detection", "--labels", str(labels), "--name", "mine"])
    described = capsys.readouterr()
    (own / "model.json").write_text(described.out)
    assert problems(own) == []
    found, shipped = (read_bundle(folder).model.networks["detector"] for folder in (own, SHIPPED / DEFAULT))
    assert (found.inputs, found.outputs) == (shipped.inputs, shipped.outputs)
    assert "look over: licence" in described.err


def test_a_draft_may_be_written_into_the_bundles_folder(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (colours / "model.json").unlink()
    (colours / "weights").mkdir()
    file = (colours / "model.onnx").rename(colours / "weights" / "model.onnx")
    main(["describe", str(file), "--family", "yolo", "--labels", "red,green,blue", "--into", str(colours)])
    assert "model.json: written" in capsys.readouterr().out
    assert main(["check", str(colours)]) == 0


def test_a_draft_never_takes_the_place_of_a_model_json(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--family", "yolo", "--labels", "a,b,c", "--into", colours]
    assert "there is one already" in failed(capsys, colours / "model.onnx", *given)


def test_a_list_of_labels_may_be_longer_than_a_files_name(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--family", "yolo", "--labels", "a,b," + "c" * 5000]
    assert main(["describe", str(colours / "model.onnx"), *given]) == 0
    assert json.loads(capsys.readouterr().out)["labels"][:2] == ["a", "b"]


def test_a_draft_takes_the_outputs_that_are_asked_for(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["describe", str(own / "model.onnx"), "--family", "tf-detection", "--labels", "cat", "--output", "scores"])
    (output,) = json.loads(capsys.readouterr().out)["networks"]["detector"]["outputs"]
    assert output["name"] == "scores"


def test_describe_says_what_the_family_will_miss(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(own / "model.onnx"), "--family", "detr", "--labels", "cat,dog"]) == 0
    assert "needs an output with role 'logits'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.onnx", "--family", "yolo"], "there is no such file"),
        (["broken.onnx", "--family", "yolo"], "ONNX Runtime cannot open it"),
        (["model.json", "--family", "yolo"], "expected a SavedModel or a file that ends in .onnx, .ts"),
        (["weights.safetensors", "--family", "yolo"], "holds weights without the network"),
        (["own.keras", "--family", "yolo"], "save it by model.export(FOLDER)"),
        (["empty", "--family", "yolo"], "a SavedModel's folder, which has a saved_model.pb in it"),
        (["model.onnx"], "--family is needed: how the outputs are read"),
        (["model.onnx", "--family", "yola"], "did you mean 'yolo'?"),
        (["model.onnx", "--family", "sam"], "sam may have several networks, and a file is one"),
        (["model.onnx", "--family", "yolo"], "give --labels"),
        (["model.onnx", "--family", "yolo", "--labels", "{model.onnx}"], "is not UTF-8 text"),
        (["model.onnx", "--family", "yolo", "--labels", "nowhere.txt"], "there is no file nowhere.txt"),
        (["model.onnx", "--family", "yolo", "--output", "x"], "there is no 'x' in the file, only boxes, scores"),
        (["model.onnx", "--family", "yolo", "--input", "float32[1,3,4,4]"], "an ONNX file says itself what it takes"),
        (["model.onnx", "--family", "yolo", "--labels", "a", "--into", "{empty}"], "put it there first"),
    ],
)
def test_describe_fails_in_one_line(
    arguments: list[str], message: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("broken.onnx", "weights.safetensors", "own.keras"):
        (own / name).write_bytes(b"garbage")
    (own / "empty").mkdir()
    file, *rest = arguments
    given = [str(own / word.strip("{}")) if word.startswith("{") else word for word in rest]
    assert message in failed(capsys, own / file, *given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "yolo", "--replace"], "--network and --replace go with --add-to"),
        (["--family", "yolo", "--input", "float32"], "expected [NAME=]DTYPE[SHAPE]"),
        (["--family", "yolo", "--input", "x=float31[1]"], "dtype: expected one of bool, float16"),
        (["--family", "yolo", "--input", "x=uint8[1,0]"], "shape"),
        (["--family", "yolo", "--input", "x=uint8[1,w]"], "shape"),
        (["--add-to", "b", "--family", "yolo"], "--family does not go with --add-to"),
    ],
)
def test_options_that_do_not_go_together_are_told(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["describe", "model.onnx", *arguments])
    assert message in capsys.readouterr().err


MISSING = {
    "m.ts": ("torch", "-r requirements-torch.txt"),
    "m.pb": ("tensorflow", "-r requirements-tf.txt"),
    "m.tflite": ("ai_edge_litert", "'ai-edge-litert>=2.3,<3'"),
}


@pytest.fixture
def without_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "tensorflow", "ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)
    for backend in ("torchscript", "tensorflow", "litert"):
        for place in ("shared.backends", "model_server.describe"):
            monkeypatch.delitem(sys.modules, f"{place}.{backend}", raising=False)


@pytest.mark.usefixtures("without_frameworks")
@pytest.mark.parametrize("file", MISSING)
@pytest.mark.parametrize("adding", [False, True])
def test_a_framework_that_is_not_there_is_named_with_what_installs_it(
    adding: bool, file: str, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (colours / file).write_bytes(b"anything")
    package, requirements = MISSING[file]
    given = ["--add-to", colours] if adding else ["--family", "yolo"]
    error = failed(capsys, colours / file, *given)
    assert f"needs {package}" in error
    assert f"pip install {requirements}" in error


def _output(name: str, *shape: int | None) -> Output:
    return name, list(shape)


OUTPUTS: dict[str, tuple[list[Output], list[str | None]]] = {
    "yolo": ([_output("output0", 1, 6, 8400)], ["cat", "dog"]),
    "yolox": ([_output("output", 1, 8400, 7)], ["cat", "dog"]),
    "detr": ([_output("logits", 1, 100, None), _output("boxes", 1, 100, 4)], ["cat", "dog"]),
    "torchvision-detection": (
        [_output("boxes", None, 4), _output("labels", None), _output("scores", None)],
        [None, "cat", "dog"],
    ),
    "tf-detection": ([_output("boxes", 1, 100, 4), _output("scores", 1, 100, 2)], ["cat", "dog"]),
    "mask-rcnn": (
        [
            _output("boxes", None, 4),
            _output("labels", None),
            _output("scores", None),
            _output("masks", None, 1, 28, 28),
        ],
        [None, "cat", "dog"],
    ),
    "yolo-seg": ([_output("output0", 1, 38, 8400), _output("output1", 1, 32, 160, 160)], ["cat", "dog"]),
}


@pytest.mark.parametrize("shape", [[1, 3, 640, 640], [None, 3, None, None], [1, 640, 640, 3], [3, None, None]])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("family", OUTPUTS)
def test_the_usual_preparation_of_a_family_fits_any_input(family: str, dtype: str, shape: list[int | None]) -> None:
    outputs, labels = OUTPUTS[family]
    usual = preprocess(family, dtype, shape)
    task = families.task_of(family)
    tasks.build(bundle(family, outputs, labels, task=task, input_shape=shape, dtype=dtype, preprocess=usual))


SPOKEN_FOR = {
    "mask-rcnn, torchvision": ("mask-rcnn", ["", "red", "green", "blue"]),
    "mask-rcnn, detectron2": ("mask-rcnn", ["red", "green", "blue"]),
    "yolo-seg v8": ("yolo-seg", ["red", "green", "blue"]),
}


@pytest.mark.parametrize("head", SPOKEN_FOR)
def test_outputs_with_masks_speak_for_their_family(
    head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = mask_graphs.write_bundle(tmp_path / "masks", head, Input((96, 160)), resize="letterbox")
    (folder / "model.json").unlink()
    family, labels = SPOKEN_FOR[head]
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    given = ["--labels", str(tmp_path / "labels.txt"), "--into", str(folder)]
    assert main(["describe", str(folder / "model.onnx"), *given]) == 0
    assert f"look over: family {family}: that is what the outputs look like" in capsys.readouterr().err
    found = read_bundle(folder).model
    assert (found.family, found.task, found.preprocess.colour) == (
        family,
        "instance-segmentation",
        "BGR" if head == "mask-rcnn, detectron2" else "RGB",
    )
    assert main(["check", str(folder)]) == 0


# --- added to a bundle


def without_artifact(folder: Path) -> None:
    """As if the bundle had been described from another export, which is still there."""
    other = {"file": "other.ts", "sha256": "0" * 64}
    changed(folder, lambda declared: declared["networks"]["detector"].update(artifacts={"torchscript": other}))


def test_a_file_is_added_under_its_backend(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without_artifact(colours)
    assert main(["describe", str(colours / "model.onnx"), "--add-to", str(colours)]) == 0
    artifacts = read_bundle(colours).model.networks["detector"].artifacts
    assert (list(artifacts), artifacts["onnx"].sha256) == (
        ["torchscript", "onnx"],
        sha256_of(colours / "model.onnx"),
    )
    assert "--backends torchscript,onnx" in capsys.readouterr().out


DIFFERING: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a name": (lambda one: one["inputs"][0].update(name="x"), "there is no 'x' in the graph, only ['image']"),
    "a dtype": (lambda one: one["inputs"][0].update(dtype="float16"), "expected dtype float32 as in the graph"),
    "a shape": (lambda one: one["outputs"][0].update(shape=[1, 8]), "expected shape [1, 6, 8] as in the graph"),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERING)
def test_a_file_that_differs_is_not_added(case: str, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = DIFFERING[case]
    without_artifact(colours)
    changed(colours, lambda declared: change(declared["networks"]["detector"]))
    before = (colours / "model.json").read_bytes()
    error = failed(capsys, colours / "model.onnx", "--add-to", colours)
    assert "not added: own: networks.detector." in error
    assert message in error
    assert (colours / "model.json").read_bytes() == before


def test_a_file_is_run_before_it_is_added(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without_artifact(colours)
    changed(colours, lambda declared: declared.update(labels=["one"]))
    changed(colours, lambda declared: declared["networks"]["detector"]["outputs"][0].update(shape=[1, None, None]))
    assert "not added: output 'output0': family 'yolo' expects" in failed(
        capsys, colours / "model.onnx", "--add-to", colours
    )


def test_a_file_outside_the_bundle_is_not_added(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shutil.copy(colours / "model.onnx", tmp_path / "elsewhere.onnx")
    assert "put it there first" in failed(capsys, file, "--add-to", colours)


def test_what_the_bundle_has_stays_until_it_is_to_be_replaced(
    colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shutil.copy(colours / "model.onnx", colours / "newer.onnx")
    assert "--replace puts this one in its place" in failed(capsys, file, "--add-to", colours)
    assert main(["describe", str(file), "--add-to", str(colours), "--replace"]) == 0
    assert read_bundle(colours).model.networks["detector"].artifacts["onnx"].file == "newer.onnx"


def test_a_network_that_the_bundle_does_not_have_is_told(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = failed(capsys, colours / "model.onnx", "--add-to", colours, "--network", "encoder")
    assert "--network: expected one of detector, found encoder" in error
