"""The catalogue, the bundle that ships, and the commands that list and check bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from model_server.catalog import SHIPPED, read_catalog
from model_server.cli import main
from model_server.export import EXPORTERS
from model_server.failures import Stopped
from model_server.manifests import json_text, own_backend, problems
from shared import tasks
from shared.artifacts import sha256_of
from shared.manifest import read_bundle

DEFAULT = "coco-ssd-mobilenet-v2"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the shipped bundle that a test may spoil."""
    folder = tmp_path / DEFAULT
    shutil.copytree(SHIPPED / DEFAULT, folder, ignore=shutil.ignore_patterns(".*"))
    return folder


def _change(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


# --- what ships


def test_every_shipped_file_is_the_one_that_the_catalogue_declares() -> None:
    for entry in read_catalog().values():
        for file in entry.files:
            if file.source is None:
                path = SHIPPED / entry.name / file.file
                assert (sha256_of(path), path.stat().st_size) == (file.sha256, file.size), path


def test_the_default_detector_is_whole_and_its_family_can_serve_it() -> None:
    assert problems(SHIPPED / DEFAULT) == []
    tasks.build(read_bundle(SHIPPED / DEFAULT))


def test_the_default_detector_names_eighty_things_in_ninety_columns() -> None:
    labels = read_bundle(SHIPPED / DEFAULT).labels
    assert (len(labels), len([label for label in labels if label])) == (90, 80)


def test_the_labels_stand_at_their_coco_ids_less_one() -> None:
    labels = read_bundle(SHIPPED / DEFAULT).labels
    assert {labels.index(name) + 1: name for name in ("person", "car", "cat", "toothbrush")} == {
        1: "person",
        3: "car",
        17: "cat",
        90: "toothbrush",
    }


def test_the_exported_graph_has_the_declared_tensors_and_nothing_that_the_runtime_warns_of(
    capfd: pytest.CaptureFixture[str],
) -> None:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(SHIPPED / DEFAULT / "model.onnx", providers=["CPUExecutionProvider"])
    found = [(value.name, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
    assert found == [("image", [1, 300, 300, 3]), ("boxes", [1, 1917, 4]), ("scores", [1, 1917, 90])]
    assert capfd.readouterr().err == ""


def test_every_bundle_with_an_origin_has_an_exporter() -> None:
    assert {entry.name for entry in read_catalog().values() if entry.export} == set(EXPORTERS)


def test_a_catalogue_file_with_a_wrong_field_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"name": "x", "about": "", "task": 1}')
    with pytest.raises(Stopped, match=r"catalog/x\.json: task: "):
        read_catalog(tmp_path)


# --- list and check


def test_the_list_says_what_is_known_and_what_is_here(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.with_name("mine").mkdir()
    shutil.copy(own / "model.json", own.with_name("mine"))
    assert main(["list", "--models", str(own.parent)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    state = {row[0]: row[-1] for row in rows[1:]}
    assert (state[DEFAULT], state["mine"], state["coco-ssd-mobile-sam"]) == ("yes", "yes", "ships")


def test_a_whole_bundle_passes_the_check(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(own)]) == 0
    assert "nothing wrong, run by onnx" in capsys.readouterr().out


def test_the_check_takes_a_name_and_speaks_of_this_folder_by_its_own(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(own, colour=1)
    monkeypatch.setenv("THINLENS_MODELS", str(own.parent))
    assert main(["check", own.name]) == 1
    monkeypatch.chdir(own)
    assert main(["check", "."]) == 1
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == 2 * [f"{own.name}/model.json:"]


def test_a_bundle_is_checked_by_a_backend_that_it_has(own: Path) -> None:
    bundle = read_bundle(own)
    assert own_backend(bundle) == "onnx"
    (network,) = bundle.model.networks.values()
    only = {name: artifact for name, artifact in network.artifacts.items() if name != "onnx"}
    networks = {"detector": msgspec.structs.replace(network, artifacts=only)}
    model = msgspec.structs.replace(bundle.model, networks=networks)
    assert own_backend(msgspec.structs.replace(bundle, model=model)) == "torchscript"


def test_a_name_that_is_not_utf_8_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "caf\udce9"]) == 1
    assert capsys.readouterr().err == "model_server: 'caf\\udce9': expected names in UTF-8\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "model.json: colour: unknown field"),
        ({"labels": "labels.txt"}, "cannot read"),
        ({"family": "yolov"}, "family: unknown 'yolov'; did you mean 'yolo'?"),
        ({"postprocess": {"iou": 1}}, "postprocess.iou: unknown field"),
        ({"preprocess": {"layout": "NCHW", "size": [300, 300]}}, "preprocess.layout"),
    ],
)
def test_the_check_names_what_is_wrong(
    changes: dict[str, Any], message: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _change(own, **changes)
    assert main(["check", str(own)]) == 1
    assert message in capsys.readouterr().err


def test_the_check_finds_a_changed_and_a_missing_file(own: Path) -> None:
    (own / "model.onnx").write_bytes(b"changed")
    assert problems(own)[0].startswith(f"{DEFAULT}/model.onnx: expected sha256 ")
    (own / "model.onnx").unlink()
    assert problems(own) == [f"{DEFAULT}/model.onnx: the file is missing"]


# --- the text of a model.json


def test_a_manifest_is_written_on_lines_that_a_person_can_read() -> None:
    text = json_text({"short": [1, 2], "long": ["a b"] * 40})
    assert max(map(len, text.splitlines())) <= 110
    assert '"short": [1, 2]' in text


def test_a_written_manifest_reads_back_the_same() -> None:
    value = {"a": ["x y", None, 'q"', "é"] * 20, "b": [{"c": [1.5] * 60}], "d": {}}
    assert json.loads(json_text(value)) == value
