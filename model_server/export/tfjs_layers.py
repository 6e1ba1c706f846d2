"""Reads a TensorFlow.js layers model (Keras layers as JSON, and weight shards) and makes an ONNX graph of it.

Only the layers that the bundled enlargers need are here; a model with another one is refused by its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

_EXPECTED = {
    "strides": [1, 1],
    "dilation_rate": [1, 1],
    "groups": 1,
    "data_format": "channels_last",
    "interpolation": "nearest",
    "axis": 3,
}
"""What every layer has to have where it has it at all."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A Keras layer: its class, its own name, the names of the layers that it takes, and its configuration."""

    kind: str
    name: str
    sources: tuple[str, ...]
    config: dict[str, Any]

    @property
    def reach(self) -> int:
        """How far a convolution sees to each side."""
        return int(self.config["kernel_size"][0]) // 2 if self.kind == "Conv2D" else 0

    @property
    def scale(self) -> int:
        return int(self.config["size"][0]) if self.kind == "UpSampling2D" else 1


@dataclass(frozen=True, slots=True)
class LayersModel:
    """Layers in an order that they can be computed in, from one picture to one picture, and their weights by name."""

    layers: tuple[Layer, ...]
    output: str
    weights: dict[str, npt.NDArray[Any]]

    @property
    def scale(self) -> int:
        return int(np.prod([layer.scale for layer in self.layers]))

    @property
    def radius(self) -> int:
        """How many pixels of its input to each side, beside its own, a pixel's block in the output depends on."""
        reach = {self.output: 0}
        for layer in reversed(self.layers):
            needed = -(-(reach[layer.name] + layer.reach) // layer.scale)
            for source in layer.sources:
                reach[source] = max(reach.get(source, 0), needed)
        return reach[self.layers[0].name]


def read_layers_model(path: Path) -> LayersModel:
    """The layers model whose JSON file is `path`. Raises ValueError that names what is not known here."""
    from model_server.export.tfjs_weights import read_weights

    document = json.loads(path.read_text(encoding="utf-8"))
    config = document["modelTopology"]["model_config"]["config"]
    layers = tuple(_layer(layer) for layer in config["layers"])
    if layers[0].kind != "InputLayer" or len(config["input_layers"]) != 1 or len(config["output_layers"]) != 1:
        raise ValueError("expected a model with one input, first in order, and one output")
    return LayersModel(layers, config["output_layers"][0][0], read_weights(document, path.parent))


def _layer(declared: dict[str, Any]) -> Layer:
    kind, name, config = declared["class_name"], declared["name"], declared["config"]
    if kind not in _KINDS:
        raise ValueError(f"the layer {name!r} is a {kind}, expected one of {', '.join(_KINDS)}")
    for key, expected in _EXPECTED.items():
        if config.get(key, expected) not in (expected, None):
            raise ValueError(f"the layer {name!r} has {key} {config[key]}, expected {expected}")
    if config.get("activation", "linear") not in ("linear", "relu"):
        raise ValueError(f"the layer {name!r} has the activation {config['activation']!r}, expected linear or relu")
    if len(set(config.get("size", [0]))) > 1 or any(side % 2 == 0 for side in config.get("kernel_size", [])):
        raise ValueError(f"the layer {name!r} has an uneven size or an even kernel, which is not known here")
    sources = tuple(source[0] for node in declared["inbound_nodes"] for source in node)
    return Layer(kind, name, sources, config)


class Graph:
    """The ONNX nodes and constants of a LayersModel, in NCHW, under the layers' own names.

    Nearest upsampling and the convolution after it become one convolution of the small picture whose channels are then
    laid out as pixels: the same sums, without ever holding the enlarged channels.
    """

    def __init__(self, model: LayersModel) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._model = model
        self._by_name = {layer.name: layer for layer in model.layers}
        for layer in model.layers:
            self.nodes += _KINDS[layer.kind](self, layer)

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def none(self, layer: Layer) -> Iterator[onnx.NodeProto]:
        """An input is there already; what upsamples is left to the convolution after it."""
        takers = [taker for taker in self._model.layers if layer.name in taker.sources]
        if layer.scale > 1 and (len(takers) != 1 or takers[0].kind != "Conv2D"):
            raise ValueError(f"the layer {layer.name!r} upsamples for something else than one convolution")
        yield from ()

    def convolution(self, layer: Layer) -> Iterator[onnx.NodeProto]:
        kernel = self._model.weights[f"{layer.name}/kernel"].transpose(3, 2, 0, 1)
        bias = self._model.weights.get(f"{layer.name}/bias", np.zeros(len(kernel), np.float32))
        source = self._by_name[layer.sources[0]]
        if layer.config["padding"] != "same" and kernel.shape[2] > 1:
            raise ValueError(f"the layer {layer.name!r} has padding {layer.config['padding']!r}, expected 'same'")
        taken, small = source.name, f"{layer.name}.small" if source.scale > 1 else layer.name
        if source.scale > 1:
            taken = source.sources[0]
            kernel, bias = _before_upsampling(kernel, source.scale), np.repeat(bias, source.scale**2)
        weights = [self.constant(f"{layer.name}.kernel", kernel), self.constant(f"{layer.name}.bias", bias)]
        linear = layer.config["activation"] == "linear"
        made = small if linear else f"{small}.linear"
        yield helper.make_node("Conv", [taken, *weights], [made], pads=[kernel.shape[2] // 2] * 4)
        if not linear:
            yield helper.make_node("Relu", [made], [small])
        if source.scale > 1:
            yield helper.make_node("DepthToSpace", [small], [layer.name], blocksize=source.scale, mode="CRD")

    def activation(self, layer: Layer) -> Iterator[onnx.NodeProto]:
        if layer.config["activation"] == "relu":
            yield helper.make_node("Relu", layer.sources, [layer.name])
        else:
            yield helper.make_node("Identity", layer.sources, [layer.name])

    def joined(self, layer: Layer) -> Iterator[onnx.NodeProto]:
        yield helper.make_node("Concat", layer.sources, [layer.name], axis=1)

    def sum(self, layer: Layer) -> Iterator[onnx.NodeProto]:
        yield helper.make_node("Sum" if len(layer.sources) > 2 else "Add", layer.sources, [layer.name])


_KINDS = {
    "InputLayer": Graph.none,
    "Conv2D": Graph.convolution,
    "Activation": Graph.activation,
    "Concatenate": Graph.joined,
    "Add": Graph.sum,
    "UpSampling2D": Graph.none,
}


def _before_upsampling(kernel: npt.NDArray[np.float32], scale: int) -> npt.NDArray[np.float32]:
    """The kernel [D, C, k, k] of a picture that was enlarged to its `scale` by repeating pixels, as one of the picture
    itself, [D * scale * scale, C, K, K]: a block's pixel sums up the taps that fall into the same small pixel."""
    reach = kernel.shape[2] // 2
    small = -(-reach // scale)
    own = np.zeros((len(kernel), scale, scale, kernel.shape[1], 2 * small + 1, 2 * small + 1))
    for row, column, y, x in np.ndindex(scale, scale, *kernel.shape[2:]):
        at_y, at_x = (row + y - reach) // scale + small, (column + x - reach) // scale + small
        own[:, row, column, :, at_y, at_x] += kernel[:, :, y, x]
    return own.reshape(-1, *own.shape[3:]).astype(np.float32)
