"""A full-size Mask R-CNN, ResNet-50-FPN of torchvision, with seeded random weights: what it takes of time and memory is
what a trained one takes. Needs torch, onnx and torchvision.

    python -m tests.torch_mask_rcnn FOLDER      a bundle: model.onnx, free height and width, and model.json
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_server.manifests import write_manifest
from shared.artifacts import sha256_of

OPSET = 17
CLASSES = 91
_EXAMPLE_HW = (128, 192)

# torchvision's wheels are built for one build of torch; beside another, its own library cannot be loaded, and then its
# Python files do not even import. These are the operators that they ask for; two of them are used.
_OPERATORS = (
    "_ps_roi_align_backward(Tensor a, Tensor b, Tensor c, float d, SymInt e, SymInt f, int g, "
    "SymInt h, SymInt i, SymInt j, SymInt k) -> Tensor",
    "_ps_roi_pool_backward(Tensor a, Tensor b, Tensor c, float d, SymInt e, SymInt f, SymInt g, SymInt h, SymInt i, "
    "SymInt j) -> Tensor",
    "_roi_align_backward(Tensor a, Tensor b, float c, SymInt d, SymInt e, SymInt f, SymInt g, SymInt h, SymInt i, "
    "int j, bool k) -> Tensor",
    "_roi_pool_backward(Tensor a, Tensor b, Tensor c, float d, SymInt e, SymInt f, SymInt g, SymInt h, SymInt i, "
    "SymInt j) -> Tensor",
    "box_iou_rotated(Tensor a, Tensor b) -> Tensor",
    "deform_conv2d(Tensor a, Tensor b, Tensor c, Tensor d, Tensor e, SymInt f, SymInt g, SymInt h, SymInt i, SymInt j, "
    "SymInt k, SymInt l, SymInt m, bool n) -> Tensor",
    "_deform_conv2d_backward(Tensor a, Tensor b, Tensor c, Tensor d, Tensor e, Tensor f, SymInt g, SymInt h, SymInt i, "
    "SymInt j, SymInt k, SymInt l, SymInt m, SymInt n, bool o) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "ps_roi_align(Tensor a, Tensor b, float c, SymInt d, SymInt e, int f) -> (Tensor, Tensor)",
    "ps_roi_pool(Tensor a, Tensor b, float c, SymInt d, SymInt e) -> (Tensor, Tensor)",
    "qnms(Tensor a, Tensor b, float c) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool(Tensor a, Tensor b, float c, SymInt d, SymInt e) -> (Tensor, Tensor)",
)


def torchvision() -> Any:
    """torchvision, with what it lacks beside this torch. Once in a process."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:  # "operator torchvision::nms does not exist"
        pass
    library = torch.library.Library("torchvision", "DEF")
    _KEPT.append(library)
    for operator in _OPERATORS:
        library.define(operator)
    library.impl("nms", _nms, "CPU")
    library.impl("roi_align", _roi_align, "CPU")
    found = importlib.import_module("torchvision")
    for module in ("torchvision.extension", "torchvision.ops.roi_align"):
        importlib.import_module(module)._has_ops = _has_operators  # type: ignore[attr-defined]
    return found


_KEPT: list[Any] = []
"""Operators are gone when their library is."""


def _has_operators() -> bool:
    return True


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """[N, 4] xyxy, [N] -> the kept ones' indices, best first."""
    order, areas = scores.argsort(descending=True), (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        corners = torch.minimum(boxes[best, 2:], boxes[rest, 2:]) - torch.maximum(boxes[best, :2], boxes[rest, :2])
        common = corners.clamp(min=0).prod(1)
        order = rest[common / (areas[best] + areas[rest] - common) <= iou_threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)


def _roi_align(*arguments: Any) -> Tensor:
    """As torchvision has it in Python, without the compiling around it."""
    plain = importlib.import_module("torchvision.ops.roi_align")._roi_align
    pooled: Tensor = getattr(plain, "__wrapped__", plain)(*arguments)
    return pooled


class MaskRcnn(nn.Module):
    """image [1, 3, H, W] float32, normalised -> boxes [N, 4] xyxy of its pixels, labels [N] int64, scores [N],
    masks [N, 1, 28, 28] in 0..1; N is 100 at most. Nothing is resized inside: that is for the caller."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        torchvision()
        detection = importlib.import_module("torchvision.models.detection")
        # A threshold of 0: random weights are sure of nothing, and every place of the 100 has to be taken.
        self.network = detection.maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=CLASSES, box_score_thresh=0.0
        )
        for block in self.network.backbone.modules():
            if hasattr(block, "bn3"):
                block.bn3.weight.fill_(0.2)  # or sixteen random blocks would make the values ever larger
        self.images = importlib.import_module("torchvision.models.detection.image_list").ImageList
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        network, hw = self.network, (image.shape[2], image.shape[3])
        features = network.backbone(image)
        proposals, _ = network.rpn(self.images(image, [hw]), features)
        (found,), _ = network.roi_heads(features, proposals, [hw])
        return found["boxes"], found["labels"], found["scores"], found["masks"]


def write_bundle(folder: Path, seed: int = 0) -> Path:
    """A folder with `model.onnx` and its `model.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    names = ["boxes", "labels", "scores", "masks"]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what PyTorch deprecates, and of what a trace holds fixed
        torch.onnx.export(
            MaskRcnn(seed),
            (torch.rand(1, 3, *_EXAMPLE_HW),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=names,
            dynamic_axes={"image": {2: "height", 3: "width"}, **{name: {0: "found"} for name in names}},
        )
    write_manifest(manifest(sha256_of(path)), folder)
    return folder


def manifest(sha256: str) -> dict[str, Any]:
    """As torchvision's GeneralizedRCNNTransform prepares a picture: the short side 800, the long one 1333 at most."""
    shapes: dict[str, list[int | None]] = {
        "boxes": [None, 4],
        "labels": [None],
        "scores": [None],
        "masks": [None, 1, 28, 28],
    }
    outputs = [
        {"name": name, "dtype": "int64" if name == "labels" else "float32", "shape": shape}
        for name, shape in shapes.items()
    ]
    detector = {
        "inputs": [{"name": "image", "dtype": "float32", "shape": [1, 3, None, None]}],
        "outputs": outputs,
        "artifacts": {"onnx": {"file": "model.onnx", "sha256": sha256}},
    }
    return {
        "name": "random-mask-rcnn",
        "task": "instance-segmentation",
        "family": "mask-rcnn",
        "licence": "BSD-3-Clause",
        "source": "torchvision's maskrcnn_resnet50_fpn with random weights",
        "networks": {"detector": detector},
        "labels": [None, *(f"thing {at}" for at in range(1, CLASSES))],
        "preprocess": {
            "resize": "short-side",
            "side": 800,
            "max_side": 1333,
            "multiple_of": 32,
            "pad_value": [124, 116, 104],
            "scale": 1 / 255,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        "postprocess": {"score_threshold": 0.0},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a bundle of a full-size Mask R-CNN with random weights.")
    parser.add_argument("folder", type=Path)
    write_bundle(parser.parse_args().folder)
