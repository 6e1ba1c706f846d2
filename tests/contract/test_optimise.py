"""Bundles optimised ahead of time: what is in them, and that they give the same answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_server.catalog import SHIPPED
from model_server.cli import main
from model_server.failures import Stopped
from model_server.manifests import problems, write_manifest
from model_server.staging.optimise import optimise, optimised_copy
from shared.artifacts import sha256_of
from shared.backends import connect
from shared.call import Call
from shared.manifest import read_bundle
from shared.settings import Settings
from tests.bundles import manifest
from tests.clients import bundle

BUNDLE = "coco-ssd-mobilenet-v2"


def artifacts(folder: Path) -> list[dict[str, Any]]:
    networks = json.loads((folder / "model.json").read_text())["networks"]
    return [network["artifacts"]["onnx"] for network in networks.values()]


def answers(folder: Path, name: str, inputs: dict[str, Any]) -> Any:
    run = connect("onnx", Settings(threads=1)).open(read_bundle(folder).network(name))
    return run(inputs, Call("test", 60))


@pytest.fixture
def with_data(tmp_path: Path) -> Path:
    """A bundle of one network twice, its weights in a second file; a value [1, 400, 3, 1] is added to them."""
    folder = tmp_path / "own"
    folder.mkdir()
    shape = [1, 400, 3, 1]
    weights = numpy_helper.from_array(np.arange(1200, dtype=np.float32).reshape(shape), "weights")
    put, got = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "out"))
    nodes = [helper.make_node("Add", ["image", "weights"], ["sum"]), helper.make_node("Relu", ["sum"], ["out"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [put], [got], [weights]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    artifact = {
        "file": "model.onnx",
        "sha256": sha256_of(folder / "model.onnx"),
        "source": "made by the tests",
        "data": [{"file": "model.onnx.data", "sha256": sha256_of(folder / "model.onnx.data")}],
    }
    declared = manifest("yolo", [("out", shape)], ["cat"], input_shape=shape)
    network = declared["networks"]["detector"] | {"artifacts": {"onnx": artifact}}
    write_manifest(declared | {"networks": {"encoder": network, "decoder": network}}, folder)
    return folder


def test_the_bundled_model_answers_as_before(tmp_path: Path) -> None:
    optimised_copy(SHIPPED / BUNDLE, tmp_path / "new", replace=False)
    pixels = {"image": np.random.default_rng(0).integers(0, 255, (1, 300, 300, 3), np.uint8)}
    before, after = (answers(folder, "detector", pixels) for folder in (SHIPPED / BUNDLE, tmp_path / "new"))
    assert all(np.allclose(before[name], after[name], atol=1e-5) for name in before)


def test_it_keeps_its_kernels_as_small_as_they_were(tmp_path: Path) -> None:
    optimised_copy(SHIPPED / BUNDLE, tmp_path / "new", replace=False)
    before, after = SHIPPED / BUNDLE / "model.onnx", tmp_path / "new" / "model.optimised.onnx"
    assert after.stat().st_size < 1.05 * before.stat().st_size


def test_the_new_graph_is_named_with_its_sum_and_its_maker_and_the_old_one_gone(tmp_path: Path) -> None:
    folder = bundle(tmp_path)
    optimise(folder, "onnx")
    (artifact,) = artifacts(folder)
    assert artifact["file"] == "model.optimised.onnx"
    assert artifact["optimised"].startswith("onnxruntime 1.")
    assert problems(folder) == []
    assert not (folder / "model.onnx").exists()


def test_weights_in_a_second_file_stay_in_one(with_data: Path) -> None:
    optimise(with_data, "onnx")
    files = {path.name for path in with_data.iterdir()}
    assert files == {"model.json", "model.optimised.onnx", "model.optimised.onnx.data"}
    assert problems(with_data) == []
    assert all(artifact["source"] == "made by the tests" for artifact in artifacts(with_data))


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_networks_of_one_file_share_the_new_one(name: str, with_data: Path) -> None:
    optimise(with_data, "onnx")
    out = answers(with_data, name, {"image": np.zeros((1, 400, 3, 1), np.float32)})["out"]
    assert out.ravel().tolist() == list(range(1200))


def test_weights_that_nobody_vouches_for_are_not_taken(with_data: Path) -> None:
    declared = json.loads((with_data / "model.json").read_text())
    for network in declared["networks"].values():
        del network["artifacts"]["onnx"]["data"]
    write_manifest(declared, with_data)
    with pytest.raises(Stopped, match=r"has weights in 'model\.onnx\.data', which model\.json does not name"):
        optimise(with_data, "onnx")


def test_what_is_optimised_already_is_left_as_it_is(tmp_path: Path) -> None:
    folder = bundle(tmp_path)
    optimise(folder, "onnx")
    before = artifacts(folder)
    assert "it has been before" in optimise(folder, "onnx")
    assert artifacts(folder) == before


def test_figures_of_the_old_graph_are_not_kept(tmp_path: Path) -> None:
    folder = bundle(tmp_path)
    point = {"size": [64, 64], "ms": 1.0, "infer_ms": 1.0, "peak_mb": 1.0, "total_mb": 1.0}
    figures = {"backend": "onnx", "runtime": "x", "processor": "x", "threads": 1, "load_s": 1.0, "first_ms": 1.0}
    profile = figures | {"measured": [point]}
    write_manifest(json.loads((folder / "model.json").read_text()) | {"profile": profile}, folder)
    optimise(folder, "onnx")
    assert read_bundle(folder).model.profile is None


def test_a_file_that_is_no_graph_is_said_to_be_none(tmp_path: Path) -> None:
    folder = bundle(tmp_path)
    (folder / "model.onnx").write_bytes(b"garbage" * 100)
    with pytest.raises(Stopped, match=r"ONNX Runtime .* cannot open 'model\.onnx'"):
        optimise(folder, "onnx")


def test_the_command_writes_a_bundle_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bundle(tmp_path)
    assert main(["optimise", str(folder), "--into", str(tmp_path / "new")]) == 0
    assert (folder / "model.onnx").is_file()
    assert problems(tmp_path / "new") == []
    assert main(["optimise", str(folder), "--into", str(tmp_path / "new")]) == 1
    assert "--replace" in capsys.readouterr().err


def test_a_bundle_for_other_backends_has_nothing_to_optimise(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED / BUNDLE, tmp_path / "own", ignore=shutil.ignore_patterns(".*")))
    declared = json.loads((folder / "model.json").read_text())
    del declared["networks"]["detector"]["artifacts"]["onnx"]
    write_manifest(declared, folder)
    with pytest.raises(Stopped, match="names no weights for 'onnx'"):
        optimised_copy(folder, tmp_path / "new", replace=False)


def test_a_file_of_the_optimised_ones_name_stops_it(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED / BUNDLE, tmp_path / BUNDLE, ignore=shutil.ignore_patterns(".thinlens-cache"))
    (folder / "model.optimised.onnx").write_bytes(b"another network's")
    with pytest.raises(Stopped, match=r"'model\.optimised\.onnx' is in the way"):
        optimise(folder, "onnx")


def test_the_graph_is_fused_as_far_as_any_processor_bears_it(tmp_path: Path) -> None:
    """At the extended level a Conv and its activation are one node of ONNX Runtime's own; NCHWc, which the full level
    makes, is for this processor."""
    folder = shutil.copytree(SHIPPED / BUNDLE, tmp_path / BUNDLE, ignore=shutil.ignore_patterns(".thinlens-cache"))
    optimise(folder, "onnx")
    nodes = onnx.load(folder / artifacts(folder)[0]["file"]).graph.node
    assert "FusedConv" in {node.op_type for node in nodes}
    assert "com.microsoft.nchwc" not in {node.domain for node in nodes}
