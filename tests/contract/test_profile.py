"""What `profile` measures and where it is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnxruntime as ort
import pytest
from openapi_schema_validator import OAS31Validator

from model_server.cli import main
from model_server.failures import Stopped
from model_server.staging.profile import profile
from shared.manifest import Profile, read_bundle
from tests.clients import bundle, client


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = bundle(tmp_path_factory.mktemp("profiled"))
    profile(folder, None)
    return folder


def found(folder: Path) -> Profile:
    profile = read_bundle(folder).model.profile
    assert profile is not None
    return profile


def test_it_says_what_was_measured_with_what(profiled: Path) -> None:
    figures = found(profiled)
    assert (figures.backend, figures.runtime) == ("onnx", f"onnxruntime {ort.__version__}")
    assert figures.measured[0].size == (64, 64)


def test_time_and_memory_are_of_the_right_order(profiled: Path) -> None:
    figures = found(profiled)
    assert 0 < figures.first_ms < 60_000
    for point in figures.measured:
        assert 0 <= point.infer_ms <= point.ms < 60_000
        assert 0 < point.peak_mb < point.total_mb < 1000


def test_a_cameras_picture_and_two_at_once_are_measured_too(profiled: Path) -> None:
    assert [(point.size, point.concurrency) for point in found(profiled).measured] == [
        ((64, 64), 1),
        ((64, 64), 2),
        ((3000, 4000), 1),
    ]


def test_each_network_has_its_curve(profiled: Path) -> None:
    memory = found(profiled).memory
    assert memory is not None
    assert memory.networks.keys() == {"detector"}
    assert 0 <= memory.resident_mb <= memory.opening_mb < 300
    assert 0 <= memory.networks["detector"].fixed_mb < 50


def test_a_bundle_of_bundles_is_measured_whole_and_leaves_the_curves_to_its_parts(tmp_path: Path) -> None:
    bundle(tmp_path, "part")
    whole = json.loads((tmp_path / "part" / "model.json").read_text())
    del whole["networks"]
    (tmp_path / "whole").mkdir()
    whole |= {"name": "whole", "bundles": {"finder": "part"}, "family": "tests.families:nothing"}
    (tmp_path / "whole" / "model.json").write_text(json.dumps(whole))
    profile(tmp_path / "whole", None)
    figures = found(tmp_path / "whole")
    assert figures.memory is None
    assert figures.measured[0].size == (64, 64)


def test_nothing_is_left_beside_the_bundle(profiled: Path) -> None:
    assert {path.name for path in profiled.iterdir()} == {"model.json", "model.onnx"}


def test_the_rest_of_model_json_stays_as_it_was(profiled: Path, tmp_path: Path) -> None:
    declared = json.loads((profiled / "model.json").read_text())
    del declared["profile"]
    assert declared == json.loads((bundle(tmp_path) / "model.json").read_text())


def test_the_model_tells_it_as_the_document_says(profiled: Path) -> None:
    served = client(models=str(profiled.parent))
    told = served.get("/models/own").get_json()
    schemas = {"components": {"schemas": served.get("/openapi.json").get_json()["components"]["schemas"]}}
    OAS31Validator({"$ref": "#/components/schemas/Model"} | schemas).validate(told)
    assert told["profile"]["measured"][0]["size"] == [64, 64]
    assert "profile" not in served.get("/models").get_json()["models"][0]


def test_a_model_that_cannot_run_is_not_profiled(tmp_path: Path) -> None:
    folder = bundle(tmp_path, inputs=[{"name": "other", "dtype": "float32", "shape": [1, 3, 64, 64]}])
    with pytest.raises(Stopped, match=r"cannot be profiled: .*there is no 'other' in the graph"):
        profile(folder, None)
    assert read_bundle(folder).model.profile is None


def test_a_backend_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="not every network has weights for torchscript"):
        profile(bundle(tmp_path), "torchscript")


def test_weights_that_have_changed_are_not_profiled(tmp_path: Path) -> None:
    folder = bundle(tmp_path)
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(Stopped, match="expected sha256"):
        profile(folder, None)


def test_the_command_says_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(bundle(tmp_path))]) == 0
    assert re.search(r"opened in [\d.]+ s, then [\d.]+ ms, then [\d.]+ ms a picture of 64x64", capsys.readouterr().out)
