from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from model_server.failures import Stopped
from model_server.landing import TRITON_MARK
from model_server.triton.config import Serving, may_be_batched
from model_server.triton.means import ContainerMeans
from model_server.triton.repository import write_repository
from model_server.triton.text_format import Message, Word, text_format
from shared.manifest import read_bundle

Axes = Sequence[int | None]
IMAGE: tuple[str, str, Axes] = ("image", "uint8", (1, 32, 48, 3))
SCORES: tuple[str, str, Axes] = ("scores", "float32", (1, None))


def write_bundle(
    folder: Path,
    *,
    inputs: Sequence[tuple[str, str, Axes]] = (IMAGE,),
    outputs: Sequence[tuple[str, str, Axes]] = (SCORES,),
    files: dict[str, list[str]] | None = None,
    **rest: Any,
) -> Path:
    """A bundle whose files hold nothing but their own names; `files` are those of each framework, the graph first."""
    kinds = {"onnx": ["model.onnx"]} if files is None else files
    artifacts = {}
    for kind, (graph, *data) in kinds.items():
        named = [{"file": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in (graph, *data)]
        artifacts[kind] = named[0] | ({"data": named[1:]} if data else {})
        for name in (graph, *data):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    tensors = {
        kind: [{"name": name, "dtype": dtype, "shape": list(shape)} for name, dtype, shape in specs]
        for kind, specs in (("inputs", inputs), ("outputs", outputs))
    }
    manifest = {"name": "own", "task": "detection", "family": "yolo", "labels": ["a"], "licence": "MIT", "source": "x"}
    network = {**tensors, "artifacts": artifacts}
    (folder / "model.json").write_text(json.dumps({**manifest, "networks": {"detector": network}, **rest}))
    return folder


def config(bundle: Path, serving: Serving) -> str:
    out = bundle.parent / "repository"
    write_repository([bundle], out, serving, replace=True)
    return (out / "own.detector" / "config.pbtxt").read_text()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_kind_of_value_has_its_own_form() -> None:
    message: Message = {
        "a": 'say "x\\\n',
        "b": True,
        "c": 3,
        "d": Word("KIND_CPU"),
        "e": [1, -1],
        "f": {"g": "é"},
        "h": [],
    }
    assert flat(text_format(message)) == (r'a: "say \"x\\\n" b: true c: 3 d: KIND_CPU e: [1, -1] f { g: "\303\251" }')


def test_a_repeated_message_is_written_as_often() -> None:
    assert flat(text_format({"input": [{"name": "a"}, {"name": "b"}]})) == 'input { name: "a" } input { name: "b" }'


def test_tensors_are_those_of_the_declaration(tmp_path: Path) -> None:
    text = flat(config(write_bundle(tmp_path / "own"), Serving(platform="onnx")))
    assert 'platform: "onnxruntime_onnx" backend: "onnxruntime" max_batch_size: 0' in text
    assert 'input { name: "image" data_type: TYPE_UINT8 dims: [1, 32, 48, 3] }' in text
    assert 'output { name: "scores" data_type: TYPE_FP32 dims: [1, -1] }' in text


def test_the_same_bundle_is_the_same_text(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own")
    assert config(bundle, Serving()) == config(bundle, Serving())


def test_a_free_axis_0_in_every_tensor_makes_batches(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "own", inputs=[("x", "float32", (None, 3, 8, 8))], outputs=[("y", "float32", (None, 4))]
    )
    text = flat(config(bundle, Serving(max_batch=16)))
    assert "max_batch_size: 16" in text
    assert 'input { name: "x" data_type: TYPE_FP32 dims: [3, 8, 8] }' in text
    assert "dynamic_batching { }" in text


@pytest.mark.parametrize("shape", [(1, 4), (None,)])
def test_a_fixed_or_a_lone_axis_in_one_tensor_makes_none(tmp_path: Path, shape: Axes) -> None:
    bundle = write_bundle(tmp_path / "own", inputs=[("x", "float32", (None, 3))], outputs=[("y", "float32", shape)])
    assert not may_be_batched(read_bundle(bundle).network("detector"), "NCHW")
    assert "dynamic_batching" not in config(bundle, Serving())


def test_a_picture_without_an_axis_for_batches_is_no_batch(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "own",
        inputs=[("x", "uint8", (None, None, 3))],
        outputs=[("y", "float32", (None, 4))],
        preprocess={"layout": "HWC"},
    )
    text = flat(config(bundle, Serving()))
    assert "max_batch_size: 0" in text
    assert "dims: [640, 640, 3] zero_data" in text


def test_a_tensor_without_axes_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own", outputs=[SCORES, ("count", "int64", ())])
    with pytest.raises(Stopped, match="'count' has no axes"):
        config(bundle, Serving())


def test_batches_of_one_are_no_batches(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own", inputs=[("x", "float32", (None, 3))], outputs=[("y", "float32", (None, 4))])
    assert "max_batch_size: 0" in config(bundle, Serving(max_batch=1))


def test_a_free_picture_is_warmed_up_at_the_prepared_size(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "own",
        inputs=[("image", "float32", (1, 3, None, None)), ("size", "int64", (None, 2))],
        preprocess={"size": [96, 128]},
    )
    text = flat(config(bundle, Serving()))
    assert 'key: "image" value { data_type: TYPE_FP32 dims: [1, 3, 96, 128] zero_data: true }' in text
    assert 'key: "size" value { data_type: TYPE_INT64 dims: [1, 2] zero_data: true }' in text


def test_what_stands_beside_the_picture_is_warmed_up_with_it(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "own",
        inputs=[
            ("pixel_values", "float32", (None, 3, None, None)),
            ("pixel_mask", "int64", (None, None, None)),
            ("orig_target_sizes", "int64", (None, None)),
        ],
        preprocess={"size": [100, 300], "multiple_of": 32},
    )
    text = flat(config(bundle, Serving()))
    assert 'key: "pixel_values" value { data_type: TYPE_FP32 dims: [1, 3, 128, 320] zero_data' in text
    assert 'key: "pixel_mask" value { data_type: TYPE_INT64 dims: [1, 128, 320] zero_data' in text
    assert 'key: "orig_target_sizes" value { data_type: TYPE_INT64 dims: [1, 2] zero_data' in text


def test_a_platform_that_the_server_lacks_is_refused_even_where_nobody_named_it(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own", files={"tensorflow": ["saved_model.pb"]})
    with pytest.raises(Stopped, match=r"no TensorFlow backend.* 25\.02"):
        config(bundle, ContainerMeans("docker", None, "cpu").fit(Serving()))
    assert "tensorflow" in config(bundle, ContainerMeans("docker", "own-image", "cpu").fit(Serving()))


def test_the_plain_image_takes_no_pictures_as_they_came() -> None:
    with pytest.raises(Stopped, match=r"--forward encoded: .*docker/model-server\.Dockerfile"):
        ContainerMeans("docker", None, "cpu").fit(Serving(forward="encoded"))


def test_instances_are_counted_and_placed(tmp_path: Path) -> None:
    text = flat(config(write_bundle(tmp_path / "own"), Serving(device="gpu", instances=3)))
    assert "instance_group { count: 3 kind: KIND_GPU }" in text


def test_tensorrt_keeps_full_precision(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own")
    text = flat(config(bundle, Serving(device="gpu", accelerator="tensorrt")))
    assert 'gpu_execution_accelerator { name: "tensorrt" parameters { key: "precision_mode" value: "FP32" } }' in text
    with pytest.raises(Stopped, match="--device gpu"):
        config(bundle, Serving(accelerator="tensorrt"))


def test_openvino_is_for_onnx_on_the_processor(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own")
    assert 'cpu_execution_accelerator { name: "openvino" }' in flat(config(bundle, Serving(accelerator="openvino")))
    with pytest.raises(Stopped, match="--platform onnx"):
        config(bundle, Serving(platform="python", accelerator="openvino"))


def test_torchscript_keeps_names_that_say_no_position(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own", files={"torchscript": ["model.torchscript"]})
    assert 'platform: "pytorch_libtorch"' in config(bundle, Serving())
    assert (tmp_path / "repository" / "own.detector" / "1" / "model.pt").read_text() == "model.torchscript"


def test_torchscript_names_with_other_positions_than_their_own_are_refused(tmp_path: Path) -> None:
    outputs: list[tuple[str, str, Axes]] = [("out__1", "float32", (1, 2)), ("out__0", "float32", (1, 2))]
    bundle = write_bundle(tmp_path / "own", outputs=outputs, files={"torchscript": ["model.pt"]})
    with pytest.raises(Stopped, match="takes the number at the end of such names for the position"):
        config(bundle, Serving())


def test_a_saved_model_lies_as_triton_looks_for_it(tmp_path: Path) -> None:
    files = ["saved/saved_model.pb", "saved/variables/variables.index"]
    bundle = write_bundle(tmp_path / "own", files={"tensorflow": files})
    text = flat(config(bundle, Serving()))
    assert 'platform: "tensorflow_savedmodel"' in text
    assert 'key: "TF_SIGNATURE_DEF" value { string_value: "serving_default" }' in text
    inside = tmp_path / "repository" / "own.detector" / "1" / "model.savedmodel"
    assert (inside / "saved_model.pb").read_text() == files[0]
    assert (inside / "variables" / "variables.index").read_text() == files[1]


def test_a_frozen_graph_is_no_saved_model(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own", files={"tensorflow": ["frozen.pb"]})
    assert 'platform: "tensorflow_graphdef"' in config(bundle, Serving())


def test_a_framework_that_the_bundle_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"nothing for 'torchscript', found \['onnx'\]"):
        config(write_bundle(tmp_path / "own"), Serving(platform="torchscript"))


def test_weights_beside_a_graph_stay_beside_it(tmp_path: Path) -> None:
    config(write_bundle(tmp_path / "own", files={"onnx": ["big/own.onnx", "big/own.onnx.data"]}), Serving())
    version = tmp_path / "repository" / "own.detector" / "1"
    assert sorted(path.name for path in version.iterdir()) == ["model.onnx", "own.onnx.data"]


@pytest.mark.parametrize(("version", "folder"), [("7", "7"), ("2024.1", "1"), ("0", "1"), ("9" * 20, "1")])
def test_a_version_that_is_no_number_of_triton_s_is_1(tmp_path: Path, version: str, folder: str) -> None:
    config(write_bundle(tmp_path / "own", version=version), Serving())
    assert (tmp_path / "repository" / "own.detector" / folder / "model.onnx").is_file()


def test_the_python_platform_carries_all_that_it_imports_of_ours(tmp_path: Path) -> None:
    text = config(write_bundle(tmp_path / "own"), Serving(platform="python"))
    version = tmp_path / "repository" / "own.detector" / "1"
    assert 'backend: "python"' in text
    assert (version / "bundle" / "model.onnx").is_file()
    assert (version / "shared" / "backends" / "onnx.py").is_file()
    assert not [path for path in version.rglob("*") if path.name in ("__pycache__", "static")]


def test_encoded_adds_a_model_of_the_bundles_own_name(tmp_path: Path) -> None:
    config(write_bundle(tmp_path / "own"), Serving(forward="encoded", instances=3))
    text = flat((tmp_path / "repository" / "own" / "config.pbtxt").read_text())
    assert 'input { name: "picture" data_type: TYPE_UINT8 dims: [-1] }' in text
    assert 'key: "run.detector" value { string_value: "own.detector" }' in text
    assert "count: 3" in text
    assert not (tmp_path / "repository" / "own" / "1" / "bundle" / "model.onnx").exists()


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own")
    with pytest.raises(Stopped, match=r"two models of the repository would be named 'own\.detector'"):
        write_repository([bundle, bundle], tmp_path / "out", Serving())


def test_a_folder_of_anothers_making_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Stopped, match="was not made by this command"):
        write_repository([write_bundle(tmp_path / "own")], out, Serving(), replace=True)


def test_a_repository_is_replaced_only_when_told(tmp_path: Path) -> None:
    bundle, out = write_bundle(tmp_path / "own"), tmp_path / "out"
    write_repository([bundle], out, Serving())
    with pytest.raises(Stopped, match="--replace"):
        write_repository([bundle], out, Serving())
    write_repository([bundle], out, Serving(forward="encoded"), replace=True)
    assert sorted(path.name for path in out.iterdir()) == [TRITON_MARK, "own", "own.detector"]


def test_a_bundle_that_is_not_whole_leaves_nothing(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own")
    (bundle / "model.onnx").write_text("another")
    with pytest.raises(Stopped, match="expected sha256"):
        write_repository([bundle], tmp_path / "out", Serving())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]
