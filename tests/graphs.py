"""Small ONNX detectors, made when a test runs: each finds the red, the green and the blue thing in a picture.

The graph undoes the normalisation that model.json declares, takes what is much redder (greener, bluer) than the rest,
and answers with its bounding box in the outputs of one family and head. A box is right only where layout, colour order,
normalisation, resizing, decoding and the way back to source pixels all are.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.bundles import Output, manifest

LABELS = ["red", "green", "blue"]
SCORES = (0.9, 0.8, 0.7)
_STRIDES = (8, 16, 32)
_TYPES = {"uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}


@dataclass(frozen=True)
class Input:
    """The tensor that a network takes; `hw` None is free."""

    hw: tuple[int, int] | None = (96, 96)
    layout: str = "NCHW"
    colour: str = "RGB"
    dtype: str = "float32"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def shape(self) -> list[int | None]:
        height, width = self.hw or (None, None)
        sides = {"N": 1, "C": 3, "H": height, "W": width}
        return [sides[axis] for axis in self.layout]

    @property
    def preprocess(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("layout", "colour", "mean", "std", "scale")}


@dataclass
class Graph:
    """ONNX nodes in the order that they were asked for."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str | npt.ArrayLike, name: str = "", **attributes: Any) -> str:
        """Adds one node and gives its output's name; what is no name becomes a constant."""
        names = [given if isinstance(given, str) else self.constant(given) for given in inputs]
        output = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def constant(self, value: npt.ArrayLike) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def join(self, *parts: str | npt.ArrayLike, axis: int) -> str:
        return self.op("Concat", *parts, axis=axis)

    def whole(self, value: npt.ArrayLike) -> npt.NDArray[np.int64]:
        return np.asarray(value, np.int64)


@dataclass(frozen=True)
class Found:
    """Names of what the graph has found: boxes xyxy and cxcywh [3, 4] in tensor pixels, present [3, 1] 0 or 1,
    scores [3, 1], columns [3, 3] with the score of each class in its own row, side [4] width, height, width, height,
    mask [3, H, W] 0 or 1."""

    xyxy: str
    cxcywh: str
    present: str
    scores: str
    columns: str
    side: str
    mask: str


def find(graph: Graph, taken: Input) -> Found:
    pixels = _pixels(graph, taken)
    much = np.where(np.eye(3, dtype=bool), 1.0, -0.5)[:, :: -1 if taken.colour == "BGR" else 1]
    mask = graph.op("Cast", graph.op("Greater", graph.op("Einsum", much, pixels, equation="ij,jhw->ihw"), 127.0), to=1)
    rows, columns = (graph.op("ReduceMax", mask, axes=[axis], keepdims=0) for axis in (2, 1))
    corners = [
        graph.op("Add", graph.op("ArgMax", line, axis=1, select_last_index=last), graph.whole(last))
        for last in (0, 1)
        for line in (columns, rows)
    ]
    xyxy = graph.op("Cast", graph.join(*corners, axis=1), to=TensorProto.FLOAT)
    to_center = [[0.5, 0, -1, 0], [0, 0.5, 0, -1], [0.5, 0, 1, 0], [0, 0.5, 0, 1]]
    present = graph.op("ReduceMax", rows, axes=[1], keepdims=1)
    scores = graph.op("Mul", present, np.array(SCORES)[:, None])
    sides = graph.op("Gather", graph.op("Shape", mask), graph.whole([2, 1, 2, 1]))
    return Found(
        xyxy,
        graph.op("MatMul", xyxy, to_center),
        present,
        scores,
        graph.op("Mul", scores, np.eye(3)),
        graph.op("Cast", sides, to=TensorProto.FLOAT),
        mask,
    )


def _pixels(graph: Graph, taken: Input) -> str:
    """The input as [3, H, W] float32 0..255."""
    tensor = graph.op("Cast", "image", to=TensorProto.FLOAT)
    if taken.layout.startswith("N"):
        tensor = graph.op("Squeeze", tensor, graph.whole([0]))
    if taken.layout.endswith("HWC"):
        tensor = graph.op("Transpose", tensor, perm=[2, 0, 1])
    std, mean = (np.array(channels)[:, None, None] for channels in (taken.std, taken.mean))
    return graph.op("Div", graph.op("Add", graph.op("Mul", tensor, std), mean), np.float32(taken.scale))


def _batched(graph: Graph, tensor: str, name: str) -> None:
    graph.op("Unsqueeze", tensor, graph.whole([0]), name=name)


def _with_rivals(graph: Graph, rows: str, weaker: npt.NDArray[np.float64]) -> str:
    """`rows` and, below them, the same with `weaker` scores: what non-maximum suppression is there for."""
    return graph.join(rows, graph.op("Mul", rows, weaker), axis=0)


def _v5(graph: Graph, found: Found, taken: Input) -> list[Output]:
    rows = graph.join(found.cxcywh, found.present, found.columns, axis=1)
    _batched(graph, _with_rivals(graph, rows, np.array([[1, 1, 1, 1, 0.6, 1, 1, 1.0]])), "output0")
    return [("output0", [1, None, 8])]


def _v8_rows(graph: Graph, found: Found) -> str:
    rows = graph.join(found.cxcywh, found.columns, axis=1)
    return _with_rivals(graph, rows, np.array([[1, 1, 1, 1, 0.6, 0.6, 0.6]]))


def _v8(graph: Graph, found: Found, taken: Input) -> list[Output]:
    _batched(graph, graph.op("Transpose", _v8_rows(graph, found), perm=[1, 0]), "output0")
    return [("output0", [1, 7, None])]


def _v8_by_row(graph: Graph, found: Found, taken: Input) -> list[Output]:
    _batched(graph, _v8_rows(graph, found), "output0")
    return [("output0", [1, None, 7])]


def _v8_normalised(graph: Graph, found: Found, taken: Input) -> list[Output]:
    rows = graph.join(graph.op("Div", found.cxcywh, found.side), found.columns, axis=1)
    _batched(graph, graph.op("Transpose", rows, perm=[1, 0]), "output0")
    return [("output0", [1, 7, None])]


def _end_to_end(graph: Graph, found: Found, taken: Input) -> list[Output]:
    rows = graph.join(found.xyxy, found.scores, np.array([[0.0], [1.0], [2.0]]), axis=1)
    _batched(graph, graph.join(rows, np.zeros((297, 6)), axis=0), "output0")
    return [("output0", [1, 300, 6])]


def _yolox(graph: Graph, found: Found, taken: Input) -> list[Output]:
    """The red thing is found in the first cell of the first level, the green and the blue one in the last of theirs."""
    assert taken.hw is not None
    grids = [(taken.hw[0] // stride, taken.hw[1] // stride) for stride in _STRIDES]
    ends = np.cumsum([height * width for height, width in grids])
    places = [0, ends[1] - 1, ends[2] - 1]
    corners = np.array([[0, 0], [grids[1][1] - 1, grids[1][0] - 1], [grids[2][1] - 1, grids[2][0] - 1]], float)
    in_cells = graph.op("Div", found.cxcywh, np.array(_STRIDES, float)[:, None])
    centers, sizes = (graph.op("Gather", in_cells, graph.whole(axes), axis=1) for axes in ([0, 1], [2, 3]))
    rows = graph.join(graph.op("Sub", centers, corners), graph.op("Log", sizes), found.present, found.columns, axis=1)
    nothing = np.zeros((int(ends[-1]), 8))
    _batched(graph, graph.op("ScatterND", nothing, graph.whole(places)[:, None], rows), "output")
    return [("output", [1, int(ends[-1]), 8])]


def _yolox_decoded(graph: Graph, found: Found, taken: Input) -> list[Output]:
    _batched(graph, graph.join(found.cxcywh, found.present, found.columns, axis=1), "output")
    return [("output", [1, None, 8])]


def _tf_raw(graph: Graph, found: Found, taken: Input) -> list[Output]:
    boxes = graph.op("Gather", graph.op("Div", found.xyxy, found.side), graph.whole([1, 0, 3, 2]), axis=1)
    _batched(graph, graph.join(boxes, boxes, axis=0), "boxes")
    _batched(graph, _with_rivals(graph, found.columns, np.array([[0.6]])), "scores")
    return [("boxes", [1, None, 4]), ("scores", [1, None, 3])]


def _tf_suppressed(graph: Graph, found: Found, taken: Input) -> list[Output]:
    boxes = graph.op("Gather", graph.op("Div", found.xyxy, found.side), graph.whole([1, 0, 3, 2]), axis=1)
    _batched(graph, graph.join(boxes, boxes, axis=0), "detection_boxes")
    _batched(graph, graph.op("Squeeze", graph.join(found.scores, found.scores, axis=0)), "detection_scores")
    graph.op("Identity", np.array([[1, 2, 3, 1, 2, 3.0]]), name="detection_classes")
    graph.op("Identity", np.array([3.0]), name="num_detections")
    each: Output = ("detection_scores", [1, None])
    return [("detection_boxes", [1, None, 4]), each, ("detection_classes", [1, 6]), ("num_detections", [1])]


def _detr(graph: Graph, found: Found, taken: Input) -> list[Output]:
    nothing = graph.op("Log", graph.op("Sub", np.float32(1.0001), found.scores))
    logits = graph.op("Log", graph.op("Add", found.columns, np.float32(1e-4)))
    _batched(graph, graph.join(logits, nothing, axis=1), "logits")
    _batched(graph, graph.op("Div", found.cxcywh, found.side), "pred_boxes")
    return [("logits", [1, 3, 4]), ("pred_boxes", [1, 3, 4])]


def _rt_detr(graph: Graph, found: Found, taken: Input) -> list[Output]:
    sure = graph.op("Add", graph.op("Mul", found.columns, np.float32(0.999)), np.float32(1e-4))
    odds = graph.op("Div", sure, graph.op("Sub", np.float32(1), sure))
    _batched(graph, graph.op("Log", odds), "pred_logits")
    _batched(graph, graph.op("Div", found.cxcywh, found.side), "pred_boxes")
    return [("pred_logits", [1, 3, 3]), ("pred_boxes", [1, 3, 4])]


def _torchvision(graph: Graph, found: Found, taken: Input) -> list[Output]:
    """Only what is there: N is 0 for a picture without colours."""
    there = graph.op("Cast", graph.op("Squeeze", found.present), to=TensorProto.BOOL)
    graph.op("Compress", found.xyxy, there, axis=0, name="boxes")
    graph.op("Compress", graph.op("Squeeze", found.scores), there, axis=0, name="scores")
    graph.op("Compress", graph.whole([1, 2, 3]), there, axis=0, name="labels")
    return [("boxes", [None, 4]), ("labels", [None]), ("scores", [None])]


Heads = dict[str, tuple[str, Any, dict[str, Any]]]
"""By name: the family, what makes the outputs, and `postprocess`."""

HEADS: Heads = {
    "tf, raw": ("tf-detection", _tf_raw, {}),
    "tf, suppressed": ("tf-detection", _tf_suppressed, {}),
    "yolo v5": ("yolo", _v5, {}),
    "yolo v8": ("yolo", _v8, {}),
    "yolo v8 by row": ("yolo", _v8_by_row, {}),
    "yolo v8 normalised": ("yolo", _v8_normalised, {"coordinates": "normalised"}),
    "yolo end-to-end": ("yolo", _end_to_end, {}),
    "yolox": ("yolox", _yolox, {}),
    "yolox decoded": ("yolox", _yolox_decoded, {"decoded": True}),
    "detr": ("detr", _detr, {}),
    "rt-detr": ("detr", _rt_detr, {}),
    "torchvision": ("torchvision-detection", _torchvision, {}),
}


def write_bundle(
    folder: Path,
    head: str,
    taken: Input,
    *,
    family: str | None = None,
    heads: Heads = HEADS,
    task: str = "detection",
    **preprocess: Any,
) -> Path:
    """A folder with `model.onnx` and its `model.json`, as one who brings a model would make it."""
    own_family, make, postprocess = heads[head]
    graph = Graph()
    outputs = make(graph, find(graph, taken), taken)
    integers = {"labels", "pred_classes", "class_nms"}
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "colours",
            [helper.make_tensor_value_info("image", _TYPES[taken.dtype], taken.shape)],
            [helper.make_tensor_value_info(n, 7 if n in integers else 1, shape) for n, shape, *_ in outputs],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    labels: list[str | None] = [None, *LABELS] if "labels" in [name for name, *_ in outputs] else [*LABELS]
    declared = manifest(
        family or own_family,
        outputs,
        labels,
        task=task,
        input_shape=taken.shape,
        dtype=taken.dtype,
        preprocess=taken.preprocess | preprocess,
        postprocess=postprocess,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    for output in declared["networks"]["detector"]["outputs"]:
        output["dtype"] = "int64" if output["name"] in integers else "float32"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(json.dumps(declared))
    return folder
