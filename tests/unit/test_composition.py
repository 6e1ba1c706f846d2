"""A bundle that puts others together, in the commands that carry bundles about: its parts go where it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_server.cli import main
from model_server.failures import Stopped
from model_server.fetch import fetch
from model_server.manifests import own_backend, problems
from model_server.staging.stage import stage
from model_server.tfserving import Options
from model_server.tfserving import write_repository as write_tfserving
from model_server.triton.config import Serving
from model_server.triton.repository import write_repository
from shared.errors import ConfigurationError
from shared.manifest import read_bundle
from tests.unit.test_triton_config import write_bundle

FILES = {"onnx": ["model.onnx"], "tensorflow": ["saved/saved_model.pb"]}
PARTS = {"detector": "finder", "segmenter": "outliner"}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """`both`, which puts `finder` and `outliner` together, in a folder with them."""
    models = tmp_path / "published"
    for name in PARTS.values():
        write_bundle(models / name, files=FILES, name=name, version="2" if name == "finder" else "3")
    return compose(models / "both")


def compose(folder: Path, **rest: Any) -> Path:
    declared = {"name": folder.name, "task": "instance-segmentation", "family": "detector-sam", "licence": "MIT"}
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({**declared, "source": "x", "bundles": PARTS, **rest}))
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_its_networks_are_named_by_their_parts(whole: Path) -> None:
    bundle = read_bundle(whole)
    assert bundle.network_names == ["detector/detector", "segmenter/detector"]
    assert [network.served_as for network in bundle.specs] == ["finder.detector", "outliner.detector"]


def test_what_is_wrong_with_a_part_is_wrong_with_it(whole: Path) -> None:
    assert problems(whole) == []
    (whole.parent / "outliner" / "model.onnx").unlink()
    assert problems(whole) == ["outliner/model.onnx: the file is missing"]


def test_a_part_that_is_not_there_is_named(whole: Path) -> None:
    (whole.parent / "outliner").rename(whole.parent / "elsewhere")
    assert problems(whole) == [
        "both/model.json: bundles.segmenter: expected the bundle 'outliner' beside this one, found none"
    ]


def test_a_backend_has_to_have_the_files_of_every_part(whole: Path) -> None:
    assert own_backend(read_bundle(whole)) == "onnx"
    write_bundle(whole.parent / "outliner", files={"tensorflow": ["saved/saved_model.pb"]}, name="outliner")
    assert own_backend(read_bundle(whole)) == "tensorflow"


def test_it_is_staged_with_its_parts(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = stage(out, ["both"], whole.parent)
    staged = {file for file in files(out / "model_server" / "models") if "/." not in file}
    assert staged == {
        "both/model.json",
        *(f"{name}/{file}" for name in PARTS.values() for file in ("model.json", "model.onnx")),
    }
    assert "with both, finder, outliner" in said


def test_a_part_that_is_named_too_is_staged_once(whole: Path, tmp_path: Path) -> None:
    said = stage(tmp_path / "out", ["finder", "both"], whole.parent)
    assert "with finder, both, outliner" in said


def test_it_is_fetched_with_its_parts(whole: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    said = fetch(whole.as_uri(), models, tmp_path)
    assert [line.partition(":")[0] for line in said.splitlines()] == ["finder", "outliner", "both"]
    assert files(models) == files(whole.parent)
    assert problems(models / "both") == []


def test_what_is_there_already_is_verified(whole: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    fetch(whole.as_uri(), models, tmp_path)
    assert fetch(whole.as_uri(), models, tmp_path).count("verified") == 3


def test_a_known_one_is_fetched_with_its_parts(tmp_path: Path) -> None:
    fetch("coco-ssd-mobile-sam", tmp_path, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"coco-ssd-mobile-sam", "coco-ssd-mobilenet-v2", "mobile-sam"}


def test_its_parts_networks_are_served_by_triton_under_their_own_names(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_repository([whole], out, Serving())
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"finder.detector", "outliner.detector"}
    assert (out / "finder.detector" / "2" / "model.onnx").is_file()


def test_a_part_that_is_served_itself_is_served_once(whole: Path, tmp_path: Path) -> None:
    finder = whole.parent / "finder"
    assert write_repository([finder, whole], tmp_path / "out", Serving()).count("finder.detector") == 1


def test_two_that_share_a_part_can_be_served_together(whole: Path, tmp_path: Path) -> None:
    other = compose(whole.parent / "other")
    assert write_repository([whole, other], tmp_path / "out", Serving()).startswith(f"{tmp_path / 'out'}: 2 models")


def test_for_pictures_as_they_came_its_declaration_lies_with_those_of_its_parts(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_repository([whole], out, Serving(forward="encoded"))
    bundles = out / "both" / "1" / "bundles"
    assert files(bundles) == {f"{name}/model.json" for name in ("both", *PARTS.values())}
    assert read_bundle(bundles / "both").fingerprint == read_bundle(whole).fingerprint
    told = " ".join((out / "both" / "config.pbtxt").read_text().split())
    assert 'key: "run.detector/detector" value { string_value: "finder.detector" }' in told
    assert 'key: "run.segmenter/detector" value { string_value: "outliner.detector" }' in told


def test_its_parts_networks_are_served_by_tensorflow_serving(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = write_tfserving(whole, out, Options())
    assert {file for file in files(out) if file.endswith(".pb")} == {
        "finder.detector/2/saved_model.pb",
        "outliner.detector/3/saved_model.pb",
    }
    assert said.splitlines()[0] == f"{out}: finder.detector, outliner.detector, version 2, 3"


def test_the_list_knows_it(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--models", str(whole.parent)]) == 0
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("both "))
    assert (row[1], row[-1]) == ("instance-segmentation", "yes")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (
            ["convert", "both", "--to", "onnx", "--into", "out"],
            "it has no network of its own; convert its parts: finder",
        ),
        (["optimise", "both", "--into", "out"], "model.json names no weights for 'onnx'"),
    ],
)
def test_what_only_its_parts_can_have_done_is_told(
    command: list[str], why: str, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THINLENS_MODELS", str(whole.parent))
    monkeypatch.chdir(whole.parent)
    assert main(command) != 0
    assert why in capsys.readouterr().err


def test_a_part_of_parts_is_refused(whole: Path) -> None:
    compose(whole.parent / "outer", bundles={"detector": "both"})
    with pytest.raises(ConfigurationError, match="expected a bundle with networks of its own, found 'both'"):
        read_bundle(whole.parent / "outer")


def test_it_is_not_served_where_a_part_is_not_whole(whole: Path, tmp_path: Path) -> None:
    (whole.parent / "finder" / "model.onnx").write_text("other")
    with pytest.raises(Stopped, match=r"finder/model\.onnx: expected sha256"):
        write_repository([whole], tmp_path / "out", Serving())
