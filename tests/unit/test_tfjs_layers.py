"""Layers models of TensorFlow.js as ONNX graphs: small ones, computed by hand with numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

onnx: Any = pytest.importorskip("onnx")
ort: Any = pytest.importorskip("onnxruntime")

from model_server.export.esrgan import convert  # noqa: E402  # needs onnx
from model_server.export.tfjs_layers import read_layers_model  # noqa: E402
from model_server.export.tfjs_weights import read_weights  # noqa: E402

RANDOM = np.random.default_rng(3)


def layer(kind: str, name: str, *sources: str, **config: Any) -> dict[str, Any]:
    nodes = [[[source, 0, 0, {}] for source in sources]] if sources else []
    return {"class_name": kind, "name": name, "config": config, "inbound_nodes": nodes}


def convolution(name: str, source: str, size: int, **config: Any) -> dict[str, Any]:
    config = {"kernel_size": [size, size], "padding": "same", "activation": "linear", "strides": [1, 1]} | config
    return layer("Conv2D", name, source, **config)


def upsampling(name: str, source: str, scale: int) -> dict[str, Any]:
    return layer("UpSampling2D", name, source, size=[scale, scale], interpolation="nearest")


def write(folder: Path, layers: list[dict[str, Any]], weights: dict[str, npt.NDArray[np.float32]]) -> Path:
    declared = [{"name": name, "shape": value.shape, "dtype": "float32"} for name, value in weights.items()]
    (folder / "shard.bin").write_bytes(b"".join(value.tobytes() for value in weights.values()))
    config = {"layers": layers, "input_layers": [["in", 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
    document = {
        "modelTopology": {"model_config": {"config": config}},
        "weightsManifest": [{"paths": ["shard.bin"], "weights": declared}],
    }
    (folder / "model.json").write_text(json.dumps(document))
    return folder / "model.json"


def weight(*shape: int) -> npt.NDArray[np.float32]:
    return RANDOM.normal(0, 0.2, shape).astype(np.float32)


def convolved(picture: npt.NDArray[Any], kernel: npt.NDArray[Any], bias: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[H, W, C] by [k, k, C, D], padded with zeros."""
    reach = kernel.shape[0] // 2
    padded = np.pad(picture.astype(np.float64), [(reach, reach), (reach, reach), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(0, 1))
    found: npt.NDArray[Any] = np.einsum("hwcyx,yxcd->hwd", windows, kernel) + bias
    return found


def run(path: Path, picture: npt.NDArray[np.uint8], white: float = 255.0) -> npt.NDArray[np.uint8]:
    session = ort.InferenceSession(convert(read_layers_model(path), white).SerializeToString())
    (enlarged,) = session.run(["enlarged"], {"image": picture[None]})
    whole: npt.NDArray[np.uint8] = enlarged[0]
    return whole


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_convolution_after_upsampling_is_done_at_the_small_size(scale: int, size: int, tmp_path: Path) -> None:
    kernel, bias = weight(size, size, 3, 3), weight(3) + 100
    path = write(
        tmp_path,
        [layer("InputLayer", "in"), upsampling("up", "in", scale), convolution("out", "up", size)],
        {"out/kernel": kernel, "out/bias": bias},
    )
    picture = RANDOM.integers(0, 256, (6, 5, 3), np.uint8)
    expected = convolved(picture.repeat(scale, 0).repeat(scale, 1), kernel, bias)
    np.testing.assert_allclose(run(path, picture), np.clip(expected, 0, 255), atol=0.51)


def test_layers_are_joined_added_and_activated(tmp_path: Path) -> None:
    kernels = {
        f"{name}/{part}": weight(*shape)
        for name, part, shape in [
            ("a", "kernel", (3, 3, 3, 3)),
            ("a", "bias", (3,)),
            ("b", "kernel", (1, 1, 6, 3)),
            ("b", "bias", (3,)),
        ]
    }
    layers = [
        layer("InputLayer", "in"),
        convolution("a", "in", 3),
        layer("Activation", "relu", "a", activation="relu"),
        layer("Concatenate", "both", "in", "relu", axis=3),
        convolution("b", "both", 1, padding="valid", activation="relu"),
        layer("Add", "out", "b", "in", "relu"),
    ]
    picture = RANDOM.integers(0, 64, (4, 7, 3), np.uint8)
    relu = convolved(picture, kernels["a/kernel"], kernels["a/bias"]).clip(0)
    both = np.concatenate([picture, relu], axis=2)
    expected = convolved(both, kernels["b/kernel"], kernels["b/bias"]).clip(0) + picture + relu
    np.testing.assert_allclose(run(write(tmp_path, layers, kernels), picture), expected.clip(0, 255), atol=0.51)


def test_a_network_of_another_range_is_fed_and_read_in_it(tmp_path: Path) -> None:
    weights = {"out/kernel": np.eye(3, dtype=np.float32)[None, None], "out/bias": np.full(3, 0.5, np.float32)}
    path = write(tmp_path, [layer("InputLayer", "in"), convolution("out", "in", 1)], weights)
    assert run(path, np.full((2, 2, 3), 51, np.uint8), white=1.0).tolist() == np.full((2, 2, 3), 178).tolist()


def test_the_radius_is_that_of_the_longest_way_in_pixels_of_the_input(tmp_path: Path) -> None:
    layers = [
        layer("InputLayer", "in"),
        convolution("a", "in", 3),
        convolution("b", "a", 5),
        layer("Add", "sum", "a", "b"),
        upsampling("up", "sum", 4),
        convolution("out", "up", 3),
    ]
    shapes = {"a": (3, 3, 3, 3), "b": (5, 5, 3, 3), "out": (3, 3, 3, 3)}
    model = read_layers_model(write(tmp_path, layers, {f"{name}/kernel": weight(*at) for name, at in shapes.items()}))
    assert (model.radius, model.scale) == (1 + 2 + 1, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (layer("Lambda", "out", "in"), "the layer 'out' is a Lambda, expected one of InputLayer, Conv2D"),
        (convolution("out", "in", 3, strides=[2, 2]), r"'out' has strides \[2, 2\], expected \[1, 1\]"),
        (layer("Activation", "out", "in", activation="tanh"), "has the activation 'tanh', expected linear or relu"),
        (convolution("out", "in", 2), "'out' has an uneven size or an even kernel"),
    ],
)
def test_what_is_not_known_is_refused_by_name(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_layers_model(write(tmp_path, [layer("InputLayer", "in"), wrong], {}))


def test_quantised_weights_are_numbers_again(tmp_path: Path) -> None:
    (tmp_path / "shard.bin").write_bytes(bytes([0, 255]))
    steps = {"dtype": "uint8", "min": -1.0, "scale": 0.5}
    declared = {"name": "w", "shape": [2], "dtype": "float32", "quantization": steps}
    found = read_weights({"weightsManifest": [{"paths": ["shard.bin"], "weights": [declared]}]}, tmp_path)
    assert found["w"].tolist() == [-1.0, 126.5]
    assert found["w"].dtype == np.float32


@pytest.mark.parametrize(("length", "message"), [(7, "end before the weight 'w'"), (9, "hold 9 bytes")])
def test_shards_of_another_length_are_told(length: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "shard.bin").write_bytes(bytes(length))
    declared = {"name": "w", "shape": [2], "dtype": "float32"}
    with pytest.raises(ValueError, match=message):
        read_weights({"weightsManifest": [{"paths": ["shard.bin"], "weights": [declared]}]}, tmp_path)
