"""A bundle as a model repository of TensorFlow Serving: every SavedModel in its place, and the files that name them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from model_server.cli import main
from model_server.failures import Stopped
from model_server.landing import TFSERVING_MARK
from model_server.tfserving import BATCHING, CONFIG, Options, config_text, write_repository

MODEL = ["saved/saved_model.pb", "saved/variables/variables.index", "saved/variables/variables.data-00000-of-00001"]


def _artifact(folder: Path, files: list[str]) -> dict[str, Any]:
    sums = []
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
        sums.append({"file": file, "sha256": hashlib.sha256(file.encode()).hexdigest()})
    return {**sums[0], "data": sums[1:]}


def write_bundle(
    folder: Path,
    files: list[str] = MODEL,
    *,
    backend: str = "tensorflow",
    version: str = "3",
    networks: tuple[str, ...] = ("detector",),
    batch: int | None = 1,
) -> Path:
    """A bundle whose files hold nothing but their own names."""
    network = {
        "inputs": [{"name": "image", "dtype": "uint8", "shape": [batch, None, None, 3]}],
        "outputs": [{"name": "boxes", "dtype": "float32", "shape": [batch, None, 4]}],
        "artifacts": {backend: _artifact(folder, files)},
    }
    model = {
        "name": folder.name,
        "version": version,
        "task": "detection",
        "family": "yolo",
        "licence": "none",
        "source": "made here",
        "labels": ["x"],
        "networks": dict.fromkeys(networks, network),
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_file_of_the_saved_model_lies_below_its_version(own: Path, out: Path) -> None:
    write_repository(write_bundle(own), out, Options())
    inside = {file.removeprefix("saved/") for file in MODEL}
    assert _files(out) == {CONFIG, TFSERVING_MARK, *(f"own.detector/3/{file}" for file in inside)}
    assert (out / "own.detector/3/variables/variables.index").read_text() == "saved/variables/variables.index"


def test_every_network_is_a_model(own: Path, out: Path) -> None:
    write_repository(write_bundle(own, networks=("encoder", "decoder")), out, Options())
    assert {file.split("/")[0] for file in _files(out)} == {CONFIG, TFSERVING_MARK, "own.encoder", "own.decoder"}


def test_the_configuration_names_the_models_where_the_server_finds_them() -> None:
    assert config_text(["own.detector"], "/srv/models/") == (
        "model_config_list {\n"
        "  config {\n"
        '    name: "own.detector"\n'
        '    base_path: "/srv/models/own.detector"\n'
        '    model_platform: "tensorflow"\n'
        "    model_version_policy { latest { num_versions: 1 } }\n"
        "  }\n"
        "}\n"
    )


def test_a_version_that_is_named_goes_before_the_bundle_s(own: Path, out: Path) -> None:
    write_repository(write_bundle(own, version="1.2.0"), out, Options(version="12"))
    assert (out / "own.detector/12/saved_model.pb").is_file()


@pytest.mark.parametrize("version", ["1.2.0", "v3", "²", "0", "", str(2**31), "9" * 5000])
def test_a_version_that_no_server_takes_is_refused(version: str, own: Path, out: Path) -> None:
    with pytest.raises(Stopped, match="--version: expected a whole number from 1 to 2147483647, found"):
        write_repository(write_bundle(own), out, Options(version=version))
    assert not out.exists()


def test_a_bundle_s_version_that_is_no_number_is_1_and_that_is_said(own: Path, out: Path) -> None:
    said = write_repository(write_bundle(own, version="2.1"), out, Options())
    assert (out / "own.detector/1/saved_model.pb").is_file()
    assert "own: version '2.1' is no whole number from 1 to 2147483647; served as version 1" in said


def test_a_base_path_may_be_a_url_and_is_kept_as_it_is(own: Path, out: Path) -> None:
    said = write_repository(write_bundle(own), out, Options("gs://bucket/my models/"))
    assert 'base_path: "gs://bucket/my models/own.detector"' in (out / CONFIG).read_text()
    assert "'--model_config_file=gs://bucket/my models/models.config'" in said


@pytest.mark.parametrize("base", ["models", "./models", "", "gs:/bucket", "gs://"])
def test_a_base_path_that_is_relative_is_refused(base: str, own: Path, out: Path) -> None:
    with pytest.raises(Stopped, match="--base-path: expected an absolute path or a URL"):
        write_repository(write_bundle(own), out, Options(base))


def test_batching_of_pictures_without_an_axis_for_it_is_refused(own: Path, out: Path) -> None:
    write_bundle(own, batch=None)
    model = json.loads((own / "model.json").read_text())
    (own / "model.json").write_text(json.dumps({**model, "preprocess": {"layout": "HWC"}}))
    with pytest.raises(Stopped, match=r"found preprocess\.layout 'HWC'"):
        write_repository(own, out, Options(batching=True))


def test_a_network_without_a_saved_model_is_named(own: Path, out: Path) -> None:
    with pytest.raises(Stopped, match=r"own: networks.detector.*: expected a SavedModel, found only onnx"):
        write_repository(write_bundle(own, ["model.onnx"], backend="onnx"), out, Options())


def test_a_frozen_graph_is_refused_with_what_makes_a_saved_model_of_it(own: Path, out: Path) -> None:
    with pytest.raises(Stopped, match=r"saved_model.pb, found 'frozen.pb'.*--to saved-model"):
        write_repository(write_bundle(own, ["frozen.pb"]), out, Options())


def test_a_file_elsewhere_than_the_saved_model_is_refused(own: Path, out: Path) -> None:
    with pytest.raises(Stopped, match=r"'other/weights' does not lie beside saved_model.pb"):
        write_repository(write_bundle(own, [MODEL[0], "other/weights"]), out, Options())


def test_a_bundle_that_is_not_whole_is_refused(own: Path, out: Path) -> None:
    write_bundle(own)
    (own / MODEL[1]).write_text("changed")
    with pytest.raises(Stopped, match="expected sha256"):
        write_repository(own, out, Options())
    assert not out.exists()


def test_batching_has_its_own_file(own: Path, out: Path) -> None:
    said = write_repository(write_bundle(own, batch=None), out, Options(batching=True))
    assert "max_batch_size { value: 8 }" in (out / BATCHING).read_text()
    assert f"--enable_batching --batching_parameters_file=/models/{BATCHING}" in said


def test_batching_of_a_network_for_one_picture_is_refused(own: Path, out: Path) -> None:
    with pytest.raises(Stopped, match=r"first axis is free, found 'image' of shape \[1, "):
        write_repository(write_bundle(own), out, Options(batching=True))


def test_a_repository_gives_way_only_when_told_to(own: Path, out: Path) -> None:
    write_repository(write_bundle(own), out, Options())
    with pytest.raises(Stopped, match="--replace puts the new one in its place"):
        write_repository(own, out, Options(version="4"))
    write_repository(own, out, Options(version="4", replace=True))
    assert not (out / "own.detector/3").exists()
    assert (out / "own.detector/4").is_dir()


@pytest.mark.parametrize("precious", ["precious", CONFIG])
def test_a_folder_of_somebody_elses_is_left_alone(precious: str, own: Path, out: Path) -> None:
    out.mkdir()
    (out / precious).write_text("mine")
    with pytest.raises(Stopped, match="was not made by this command"):
        write_repository(write_bundle(own), out, Options(replace=True))
    assert _files(out) == {precious}


def test_nothing_is_written_into_a_bundle_or_another_repository(own: Path, out: Path) -> None:
    with pytest.raises(Stopped, match=r"lies inside .*own, which has a model\.json"):
        write_repository(write_bundle(own), own / "served", Options())
    write_repository(own, out, Options())
    with pytest.raises(Stopped, match=r"lies inside .*out, which has a \.thinlens-tfserving"):
        write_repository(own, out / "deep" / "served", Options())


def test_a_command_that_is_interrupted_leaves_nothing(own: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())
        raise KeyboardInterrupt

    monkeypatch.setattr("model_server.tfserving.shutil.copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_repository(write_bundle(own), out, Options())
    assert [path.name for path in out.parent.iterdir()] == ["own"]


def test_the_command_says_how_the_server_is_started(own: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tfserving", str(write_bundle(own)), str(out), "--base-path", "/srv"]) == 0
    said = capsys.readouterr().out
    assert f"{out}: own.detector, version 3" in said
    assert "tensorflow_model_server --port=8500 --rest_api_port=8501 --model_config_file=/srv/models.config" in said


def test_the_command_finds_a_bundle_by_its_name(
    own: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(own)
    monkeypatch.setenv("THINLENS_MODELS", str(own.parent))
    assert main(["tfserving", "own", str(out)]) == 0
    assert (out / CONFIG).is_file()
    assert main(["tfserving", "none", str(out)]) == 1
    assert "none: there is no such folder, nor a bundle of that name" in capsys.readouterr().err


def test_two_networks_of_one_name_are_refused(own: Path, out: Path) -> None:
    write_bundle(own, networks=("encoder", "decoder"))
    model = json.loads((own / "model.json").read_text())
    for network in model["networks"].values():
        network["served_as"] = "same"
    (own / "model.json").write_text(json.dumps(model))
    with pytest.raises(Stopped, match=r"different served_as, found \['same', 'same'\]"):
        write_repository(own, out, Options())
