"""Heads of tests.graphs with masks beside their boxes: what of the picture has the colour, as each family says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from tests import graphs
from tests.bundles import Output
from tests.graphs import Found, Graph, Heads, Input

_STEP = 4  # of the prototypes
_SURE = 20.0
_PLANES: tuple[str, list[int | None]] = ("output1", [1, 3, None, None])


def _in_box(graph: Graph, found: Found) -> str:
    """For each box [3] the mask of each colour [3] inside it, 28x28."""
    planes = graph.op("Unsqueeze", found.mask, graph.whole([0]))
    return graph.op(
        "RoiAlign",
        planes,
        found.xyxy,
        graph.whole([0, 0, 0]),
        output_height=28,
        output_width=28,
        coordinate_transformation_mode="half_pixel",
    )


def _own(graph: Graph, found: Found) -> str:
    """For each box its own colour's mask, [3, 1, 28, 28]."""
    own = graph.op("Mul", _in_box(graph, found), np.eye(3)[:, :, None, None])
    return graph.op("ReduceSum", own, graph.whole([1]), keepdims=1)


def _there(graph: Graph, found: Found, arrays: dict[str, Any]) -> None:
    """Gives the arrays of what is there: N is 0 for a picture without colours."""
    there = graph.op("Cast", graph.op("Squeeze", found.present), to=TensorProto.BOOL)
    for name, array in arrays.items():
        graph.op("Compress", array, there, axis=0, name=name)


def _torchvision(graph: Graph, found: Found, taken: Input) -> list[Output]:
    scores = graph.op("Squeeze", found.scores)
    masks = _own(graph, found)
    _there(graph, found, {"boxes": found.xyxy, "labels": graph.whole([1, 2, 3]), "scores": scores, "masks": masks})
    return [("boxes", [None, 4]), ("labels", [None]), ("scores", [None]), ("masks", [None, 1, 28, 28])]


def _pasted(graph: Graph, found: Found, taken: Input) -> list[Output]:
    scores = graph.op("Squeeze", found.scores)
    masks = graph.op("Unsqueeze", found.mask, graph.whole([1]))
    _there(graph, found, {"boxes": found.xyxy, "labels": graph.whole([1, 2, 3]), "scores": scores, "masks": masks})
    return [("boxes", [None, 4]), ("labels", [None]), ("scores", [None]), ("masks", [None, 1, None, None])]


def _detectron2(graph: Graph, found: Found, taken: Input) -> list[Output]:
    scores = graph.op("Squeeze", found.scores)
    classes, masks = graph.whole([0, 1, 2]), _own(graph, found)
    _there(graph, found, {"pred_boxes": found.xyxy, "pred_classes": classes, "scores": scores, "pred_masks": masks})
    return [("pred_boxes", [None, 4]), ("pred_classes", [None]), ("scores", [None]), ("pred_masks", [None, 1, 28, 28])]


def _caffe2(graph: Graph, found: Found, taken: Input) -> list[Output]:
    scores, masks = graph.op("Squeeze", found.scores), _in_box(graph, found)
    classes = graph.whole([0, 1, 2])
    _there(graph, found, {"bbox_nms": found.xyxy, "score_nms": scores, "class_nms": classes, "mask_fcn_probs": masks})
    return [
        ("bbox_nms", [None, 4]),
        ("score_nms", [None]),
        ("class_nms", [None]),
        ("mask_fcn_probs", [None, 3, 28, 28]),
    ]


def _prototypes(graph: Graph, found: Found) -> str:
    """For each colour the logits of where it is, [1, 3, h, w]."""
    logits = graph.op("Mul", graph.op("Sub", found.mask, np.float32(0.5)), np.float32(_SURE))
    whole = graph.op("Unsqueeze", logits, graph.whole([0]))
    return graph.op("AveragePool", whole, kernel_shape=[_STEP, _STEP], strides=[_STEP, _STEP])


def _with_rivals(graph: Graph, rows: str, weaker: list[float]) -> str:
    """`rows` and, below them, the same with weaker scores and other masks."""
    return graph.join(rows, graph.op("Mul", rows, np.array([[*weaker, -1, -1, -1]], float)), axis=0)


def _yolo(graph: Graph, found: Found, rows: str, shape: list[int | None]) -> list[Output]:
    graph.op("Unsqueeze", rows, graph.whole([0]), name="output0")
    graph.op("Identity", _prototypes(graph, found), name="output1")
    return [("output0", shape), _PLANES]


def _v8(graph: Graph, found: Found, taken: Input) -> list[Output]:
    rows = graph.join(found.cxcywh, found.columns, np.eye(3), axis=1)
    rows = _with_rivals(graph, rows, [1, 1, 1, 1, 0.6, 0.6, 0.6])
    return _yolo(graph, found, graph.op("Transpose", rows, perm=[1, 0]), [1, 10, None])


def _v5(graph: Graph, found: Found, taken: Input) -> list[Output]:
    rows = graph.join(found.cxcywh, found.present, found.columns, np.eye(3), axis=1)
    return _yolo(graph, found, _with_rivals(graph, rows, [1, 1, 1, 1, 0.6, 1, 1, 1]), [1, None, 11])


def _end_to_end(graph: Graph, found: Found, taken: Input) -> list[Output]:
    rows = graph.join(found.xyxy, found.scores, np.array([[0.0], [1.0], [2.0]]), np.eye(3), axis=1)
    return _yolo(graph, found, graph.join(rows, np.zeros((297, 9)), axis=0), [1, 300, 9])


def _channels_last(graph: Graph, found: Found, taken: Input) -> list[Output]:
    """As TensorFlow exports it."""
    rows = graph.join(found.cxcywh, found.columns, np.eye(3), axis=1)
    graph.op("Unsqueeze", graph.op("Transpose", rows, perm=[1, 0]), graph.whole([0]), name="output0")
    graph.op("Transpose", _prototypes(graph, found), perm=[0, 2, 3, 1], name="output1")
    return [("output0", [1, 10, None]), ("output1", [1, None, None, 3])]


HEADS: Heads = {
    "mask-rcnn, torchvision": ("mask-rcnn", _torchvision, {}),
    "mask-rcnn, pasted": ("mask-rcnn", _pasted, {}),
    "mask-rcnn, detectron2": ("mask-rcnn", _detectron2, {}),
    "mask-rcnn, caffe2": ("mask-rcnn", _caffe2, {}),
    "yolo-seg v8": ("yolo-seg", _v8, {}),
    "yolo-seg v5": ("yolo-seg", _v5, {}),
    "yolo-seg end-to-end": ("yolo-seg", _end_to_end, {}),
    "yolo-seg channels last": ("yolo-seg", _channels_last, {}),
}


def write_bundle(folder: Path, head: str, taken: Input, **preprocess: Any) -> Path:
    """A folder with `model.onnx` and its `model.json`, as one who brings a model would make it."""
    return graphs.write_bundle(folder, head, taken, heads=HEADS, task="instance-segmentation", **preprocess)
