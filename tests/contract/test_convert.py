"""A bundle made into another one: raw pixels, another size, fewer bits. The boxes stay where they are."""

from __future__ import annotations

import json
import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from model_server.catalog import SHIPPED
from model_server.cli import main
from model_server.comparison.photos import SAMPLES
from model_server.manifests import problems
from shared.artifacts import sha256_of
from tests.contract.test_bring_your_own import LETTERBOX, SCENES, assert_found, predict
from tests.graphs import HEADS, Input, write_bundle

DETECTOR = SHIPPED / "coco-ssd-mobilenet-v2"
IMAGENET = Input((96, 160), scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
FREE = Input(None, scale=1 / 255)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("square", "wide", "tall"):
        (folder / f"{name}.png").write_bytes(SCENES[name].encoded())
    return folder


def converted(source: Path, out: Path, scenes: Path, *options: str) -> dict[str, Any]:
    """The new model.json; a conversion that fails is the test's failure."""
    status = main(["convert", str(source), "--to", "onnx", "--into", str(out), "--pictures", str(scenes), *options])
    assert status == 0
    assert problems(out) == []
    declared: dict[str, Any] = json.loads((out / "model.json").read_bytes())
    return declared


def refused(source: Path, out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line on stderr."""
    assert main(["convert", str(source), "--to", "onnx", "--into", str(out), *options]) == 1
    assert not out.exists()
    return capsys.readouterr().err


def picture(declared: dict[str, Any]) -> dict[str, Any]:
    tensor: dict[str, Any] = declared["networks"]["detector"]["inputs"][0]
    return tensor


def artifact(declared: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = declared["networks"]["detector"]["artifacts"]["onnx"]
    return made


@pytest.mark.parametrize("head", HEADS)
def test_folded_normalisation_finds_the_same_things(head: str, tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own", head, IMAGENET, **LETTERBOX)
    declared = converted(tmp_path / "own", tmp_path / "new", scenes, "--fold-normalisation")
    assert picture(declared) == {"name": "image", "dtype": "uint8", "shape": [1, 3, 96, 160]}
    assert declared["preprocess"] == {"layout": "NCHW", "colour": "RGB", "resize": "letterbox"}
    assert_found(predict(tmp_path / "new", SCENES["wide"].encoded()), SCENES["wide"], (96, 160))


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHW", "HWC"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_layout_and_colour_order_move_into_the_graph(
    dtype: str, layout: str, colour: str, tmp_path: Path, scenes: Path
) -> None:
    taken = Input((96, 160), layout=layout, colour=colour, dtype=dtype, scale=1 / 255, mean=(0.1, 0.2, 0.3))
    write_bundle(tmp_path / "own", "yolo v8", taken, **LETTERBOX)
    options = ("--fold-normalisation", "--layout", f"{'N' * layout.startswith('N')}HWC", "--colour", "RGB")
    declared = converted(tmp_path / "own", tmp_path / "new", scenes, *options)
    assert picture(declared)["shape"][-3:] == [96, 160, 3]
    assert_found(predict(tmp_path / "new", SCENES["tall"].encoded()), SCENES["tall"], (96, 160))


def test_the_folded_graph_computes_to_the_bit_what_the_service_did(tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own", "detr", IMAGENET, **LETTERBOX)
    converted(tmp_path / "own", tmp_path / "new", scenes, "--fold-normalisation")
    raw = np.random.default_rng(1).integers(0, 256, (1, 3, 96, 160), np.uint8)
    gain, offset = (np.array(v, np.float32)[:, None, None] for v in _line(IMAGENET))
    before, after = (ort.InferenceSession(tmp_path / name / "model.onnx") for name in ("own", "new"))
    given = np.add(np.multiply(raw, gain, dtype=np.float32), offset)
    for one, other in zip(before.run(None, {"image": given}), after.run(None, {"image": raw}), strict=True):
        np.testing.assert_array_equal(one, other)


def _line(taken: Input) -> tuple[Any, Any]:
    std = np.array(taken.std)
    return taken.scale / std, -np.array(taken.mean) / std


def test_a_free_network_gets_a_fixed_size(tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own", "yolo v8", FREE, size=[96, 96], **LETTERBOX)
    declared = converted(tmp_path / "own", tmp_path / "new", scenes, "--size", "160x128")
    assert (picture(declared)["shape"], declared["preprocess"]["size"]) == ([1, 3, 160, 128], [160, 128])
    assert_found(predict(tmp_path / "new", SCENES["tall"].encoded()), SCENES["tall"], (160, 128))


def test_a_fixed_network_is_freed_and_still_fed_as_before(tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own", "yolo v8", IMAGENET, **LETTERBOX)
    declared = converted(tmp_path / "own", tmp_path / "new", scenes, "--free-size")
    assert (picture(declared)["shape"], declared["preprocess"]["size"]) == ([1, 3, None, None], [96, 160])
    session = ort.InferenceSession(tmp_path / "new" / "model.onnx")
    assert session.run(None, {"image": np.zeros((1, 3, 64, 32), np.float32)})[0].shape[1] == 7


def test_steps_follow_each_other(tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own", "yolo v8", FREE, size=[96, 96], **LETTERBOX)
    declared = converted(tmp_path / "own", tmp_path / "new", scenes, "--size", "96x160", "--fold-normalisation")
    assert artifact(declared)["source"] == "model.onnx; size 96x160; normalisation folded"
    assert picture(declared) == {"name": "image", "dtype": "uint8", "shape": [1, 3, 96, 160]}


def test_a_size_that_is_baked_into_the_graph_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the graph has its size baked in" in refused(DETECTOR, tmp_path / "new", capsys, "--free-size")


def test_raw_pixels_cannot_be_folded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(DETECTOR, tmp_path / "new", capsys, "--fold-normalisation")
    assert "input 'image' takes raw pixels already" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--int8"], "--int8 needs --calibration FOLDER"),
        (["--half", "--calibration", "."], "--calibration goes with --int8"),
        (["--size", "96x96", "--free-size"], "expected one of them"),
        (["--layout", "NHWC"], "go with --fold-normalisation"),
        (
            ["--from", "frozen"],
            "--to onnx is made from frozen, --module, onnx, saved-model, torchscript; the bundle has onnx",
        ),
        (["--network", "encoder"], "--network: expected one of detector, found encoder"),
        ([], "the bundle has its onnx already"),
        (["--module", "a:b", "--from", "onnx"], "--module and --from: expected one of them"),
        (["--to", "frozen"], "--to frozen is made from saved-model; the bundle has onnx"),
        (["--to", "saved-model"], "--to saved-model is made from frozen; the bundle has onnx"),
        (["--to", "litert", "--module", "a:b"], "--to litert is made from frozen, saved-model, not from a --module"),
    ],
)
def test_wishes_that_cannot_be_are_told(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "own", "yolo v8", Input(), **LETTERBOX)
    assert message in refused(tmp_path / "own", tmp_path / "new", capsys, *options)


def test_a_folder_that_is_no_bundle_is_never_replaced(
    tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "own", "yolo v8", IMAGENET, **LETTERBOX)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("kept")
    options = ["--to", "onnx", "--into", str(tmp_path / "letters"), "--replace", "--fold-normalisation"]
    assert main(["convert", str(tmp_path / "own"), *options, "--pictures", str(scenes)]) == 1
    assert "was not made by this command" in capsys.readouterr().err
    assert (tmp_path / "letters" / "dear.txt").read_text() == "kept"


def test_no_bundle_is_written_inside_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "own", "yolo v8", IMAGENET, **LETTERBOX)
    message = refused(tmp_path / "own", tmp_path / "own" / "new", capsys, "--fold-normalisation")
    assert "lies inside" in message


def test_the_new_bundle_may_have_a_name_of_its_own(tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own", "yolo v8", IMAGENET, **LETTERBOX)
    declared = converted(tmp_path / "own", tmp_path / "new", scenes, "--fold-normalisation", "--name", "raw")
    assert declared["name"] == "raw"


def test_a_name_that_no_bundle_may_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        refused(DETECTOR, tmp_path / "new", capsys, "--name", "no/name")
    assert "--name: expected small letters" in capsys.readouterr().err


def test_a_bundle_is_found_by_its_name_and_may_begin_with_a_byte_order_mark(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(tmp_path / "own", "yolo v8", IMAGENET, **LETTERBOX) / "model.json"
    path.write_bytes(BOM_UTF8 + path.read_bytes())
    monkeypatch.setenv("THINLENS_MODELS", str(tmp_path))
    converted(Path("own"), tmp_path / "new", scenes, "--fold-normalisation")


def test_without_a_framework_the_exporters_packages_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "shared.backends.torchscript", raising=False)
    message = refused(DETECTOR, tmp_path / "new", capsys, "--to", "torchscript")
    assert "needs torch: pip install -r model_server/export/requirements-torch.txt" in message


def test_a_graph_without_layers_has_nothing_to_quantise(
    tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "own", "yolo v8", Input(), **LETTERBOX)
    message = refused(tmp_path / "own", tmp_path / "new", capsys, "--int8", "--calibration", str(scenes))
    assert "no convolution or matrix product" in message


def test_int8_is_a_quarter_of_the_floats_and_says_what_it_costs(tmp_path: Path) -> None:
    declared = converted(DETECTOR, tmp_path / "new", SAMPLES, "--int8", "--calibration", str(SAMPLES))
    assert (tmp_path / "new" / "model.onnx").stat().st_size < 0.3 * 18e6
    share = float(artifact(declared)["note"].removeprefix("int8: ").split()[0])
    assert share >= 0.9
    assert artifact(declared)["sha256"] == sha256_of(tmp_path / "new" / "model.onnx")
    assert (tmp_path / "new" / "LICENSE").read_bytes() == (DETECTOR / "LICENSE").read_bytes()


def test_half_precision_keeps_every_detection(tmp_path: Path) -> None:
    declared = converted(DETECTOR, tmp_path / "new", SAMPLES, "--half")
    assert artifact(declared)["note"].startswith("float16: 1.00 of the detections matched")


def test_half_weights_are_half_a_file_and_exact_where_they_were_so(tmp_path: Path) -> None:
    converted(DETECTOR, tmp_path / "new", SAMPLES, "--half-weights")
    sizes = [(folder / "model.onnx").stat().st_size for folder in (tmp_path / "new", DETECTOR)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


def test_what_is_not_good_enough_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--pictures", str(SAMPLES), "--half", "--tolerance-score", "1e-9"]
    refused(DETECTOR, tmp_path / "new", capsys, *options)


def test_what_is_not_good_enough_can_be_kept_anyway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--half", "--tolerance-score", "1e-9", "--keep-anyway"]
    assert main(["convert", str(DETECTOR), "--to", "onnx", "--into", str(tmp_path / "new"), *options]) == 1
    assert "not good enough: a score differs by" in capsys.readouterr().out
    assert problems(tmp_path / "new") == []


def test_what_is_there_stays_until_it_is_to_be_replaced(
    tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "own", "yolo v8", IMAGENET, **LETTERBOX)
    converted(tmp_path / "own", tmp_path / "new", scenes, "--fold-normalisation")
    options = ["--to", "onnx", "--into", str(tmp_path / "new"), "--pictures", str(scenes), "--free-size"]
    assert main(["convert", str(tmp_path / "own"), *options]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "own"), *options, "--replace"]) == 0
    assert sorted(path.name for path in (tmp_path).iterdir()) == ["new", "own"]
