"""Makes enlargers: UpscalerJS's networks, from their TensorFlow.js layers models to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from model_server.archives import Archive
from model_server.export.canonical import canonical
from model_server.export.tfjs_layers import Graph, LayersModel, read_layers_model
from model_server.manifests import tensor_json, write_manifest
from shared.artifacts import sha256_of
from shared.tensors import TensorSpec

OPSET = 17
_INPUT = TensorSpec("image", "uint8", (1, None, None, 3))
_OUTPUT = TensorSpec("enlarged", "uint8", (1, None, None, 3))


@dataclass(frozen=True, slots=True)
class Published:
    """Where a bundle's networks lie in a package, by their names here; `white` is what they take for 255."""

    name: str
    package: str
    folders: Mapping[str, str]
    licence: str
    about: str
    white: float = 255.0


_SCALES = {f"x{scale}": f"models/x{scale}" for scale in (2, 3, 4, 8)}
SLIM = Published(
    "esrgan-slim", "@upscalerjs/esrgan-slim@1.0.0", _SCALES, "MIT", "UpscalerJS's ESRGAN slim by Kevin Scott"
)
MEDIUM = Published(
    "esrgan-medium", "@upscalerjs/esrgan-medium@1.0.0", _SCALES, "MIT", "UpscalerJS's ESRGAN medium by Kevin Scott"
)
PSNR_SMALL = Published(
    "rdn-psnr-small",
    "@upscalerjs/esrgan-legacy@1.0.0",
    {"x2": "models/psnr-small"},
    "Apache-2.0",
    "idealo's Image Super-Resolution, RDN psnr-small, as published by UpscalerJS (MIT)",
    white=1.0,
)


def export(published: Published, source: Path, folder: Path) -> None:
    """Writes an ONNX file for every scale, their licence and model.json into `folder`, from the npm package file
    `source`."""
    archive = Archive(source)
    archive.extract({"LICENSE": folder / "LICENSE"})
    networks, radius = {}, 0
    for name, place in published.folders.items():
        model = _read(archive, place)
        path = folder / f"{name}.onnx"
        path.write_bytes(convert(model, published.white).SerializeToString(deterministic=True))
        networks[name] = _network(path, f"npm:{published.package}/{place}/model.json")
        radius = max(radius, model.radius)
    write_manifest(manifest(published, networks, radius), folder)


slim, medium, psnr_small = (partial(export, published) for published in (SLIM, MEDIUM, PSNR_SMALL))


def _read(archive: Archive, place: str) -> LayersModel:
    with TemporaryDirectory() as scratch:
        archive.extract({f"{place}/{file}": Path(scratch) / file for file in archive.members(place)})
        return read_layers_model(Path(scratch) / "model.json")


def convert(model: LayersModel, white: float) -> onnx.ModelProto:
    """A checked ONNX model around the layers: image [1, H, W, 3] uint8 RGB -> enlarged [1, scale * H, scale * W, 3],
    rounded and kept in 0..255. Weights are float32 as published: rounded ones would change grey levels."""
    graph = Graph(model)
    picture = model.layers[0].name
    before = [
        helper.make_node("Transpose", [_INPUT.name], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], [picture if white == 255 else "pixels"], to=TensorProto.FLOAT),
    ]
    after = []
    made = model.output
    if white != 255:
        before.append(helper.make_node("Mul", ["pixels", graph.constant("down", np.float32(white / 255))], [picture]))
        after.append(helper.make_node("Mul", [made, graph.constant("up", np.float32(255 / white))], ["levels"]))
        made = "levels"
    bounds = [graph.constant("black", np.float32(0)), graph.constant("white", np.float32(255))]
    after += [
        helper.make_node("Round", [made], ["rounded"]),
        helper.make_node("Clip", ["rounded", *bounds], ["kept"]),
        helper.make_node("Cast", ["kept"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], [_OUTPUT.name], perm=[0, 2, 3, 1]),
    ]
    inputs = [helper.make_tensor_value_info(_INPUT.name, TensorProto.UINT8, [1, "height", "width", 3])]
    outputs = [helper.make_tensor_value_info(_OUTPUT.name, TensorProto.UINT8, [1, "tall", "wide", 3])]
    whole = helper.make_model(
        helper.make_graph([*before, *graph.nodes, *after], "enlarger", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    finished = canonical(whole, producer="thinlens")
    onnx.checker.check_model(finished, full_check=True)
    return finished


def _network(path: Path, source: str) -> dict[str, Any]:
    return {
        "inputs": [tensor_json(_INPUT)],
        "outputs": [tensor_json(_OUTPUT)],
        "artifacts": {"onnx": {"file": path.name, "sha256": sha256_of(path), "source": source}},
    }


def manifest(published: Published, networks: dict[str, Any], radius: int) -> dict[str, Any]:
    """What model.json says. `overlap` is what tiles have to share for no seam: how far the networks see."""
    return {
        "name": published.name,
        "task": "super-resolution",
        "family": "image-to-image",
        "licence": published.licence,
        "source": f"{published.about}, {published.package}",
        "networks": networks,
        "preprocess": {"layout": "NHWC"},
        "postprocess": {"overlap": radius},
    }
