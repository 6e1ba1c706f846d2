"""Family `yolo`: one output, whose head is told by its shape and the number C of labels, or by `head` in model.json.

    v5          [1, N, 5+C]                centre, size, objectness, a score a class: v3 to v7
    v8          [1, 4+C, N], [1, N, 4+C]   centre, size, a score a class: v8, v9, v11, v12
    end-to-end  [1, N, 6]                  corners, score, class: v10, v26 and exports with `nms=True`; the graph has
                                           suppressed overlapping boxes and fills the last rows with zeros

`[1, N, 6]` fits more than one head where there are one or two labels: `head` must then be given. Scores have passed
their sigmoid inside the graph. Boxes are in tensor pixels, or 0..1 of the tensor with `coordinates: "normalised"`
(TensorFlow exports; RT-DETR as Ultralytics exports it, which also wants `nms: false`). The networks take RGB with
`scale` 1/255, letterboxed in the middle on 114.
Source: models/yolo.py of ultralytics/yolov5; utils/ops.py and nn/modules/head.py of ultralytics/ultralytics.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from shared.errors import ConfigurationError
from shared.geometry import cxcywh_to_xyxy
from shared.tasks.detection import (
    Candidates,
    DetectionTask,
    Misfit,
    Options,
    best_class,
    outputs_by_role,
    read_options,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.geometry import HW
    from shared.manifest import Bundle
    from shared.tensors import Float32, Shape, Tensors

Head = Literal["v5", "v8", "end-to-end"]

_ROLES = {"detections": ("output0", "output", "detections", "predictions")}


class YoloOptions(Options, frozen=True, kw_only=True):
    head: Head | None = None
    coordinates: Literal["pixels", "normalised"] = "pixels"


def task(bundle: Bundle) -> DetectionTask:
    options = read_options(bundle, YoloOptions)
    roles = outputs_by_role(bundle, _ROLES)
    spec = roles["detections"]
    try:
        head = _declared_head(spec.shape, len(bundle.labels), options.head)
    except Misfit as misfit:
        raise ConfigurationError(
            f"networks.detector.outputs: {spec.name!r} has shape {misfit.found}, "
            f"family 'yolo' expects {misfit.expected}"
        ) from misfit
    normalised = options.coordinates == "normalised"
    decode = partial(_decode, head=head, classes=len(bundle.labels), normalised=normalised)
    return DetectionTask(bundle, options, roles, decode)


def _decode(
    outputs: Tensors, model_hw: HW, score_threshold: float, *, head: Head | None, classes: int, normalised: bool
) -> Candidates:
    """`detections` [1, N, columns] or [1, columns, N] -> Candidates, one a box, of its best class."""
    output = outputs["detections"]
    found_head = _found_head(output.shape, classes, head)
    rows = output[0].astype(np.float32, copy=False)
    if found_head == "v8" and rows.shape[0] == 4 + classes:
        rows = rows.T
    found = _READERS[found_head](rows, score_threshold)
    if not normalised:
        return found
    height, width = model_hw
    return replace(found, boxes_xyxy=found.boxes_xyxy * np.array([width, height, width, height], np.float32))


def _read_v5(rows: Float32, score_threshold: float) -> Candidates:
    # No class score is above 1, so a box is never better than its objectness; most end here.
    rows = rows[rows[:, 4] >= score_threshold]
    return best_class(cxcywh_to_xyxy(rows[:, :4]), rows[:, 4:5] * rows[:, 5:], score_threshold)


def _read_v8(rows: Float32, score_threshold: float) -> Candidates:
    return best_class(cxcywh_to_xyxy(rows[:, :4]), rows[:, 4:], score_threshold)


def _read_end_to_end(rows: Float32, score_threshold: float) -> Candidates:
    rows = rows[(rows[:, 4] >= score_threshold) & np.isfinite(rows[:, 5])]
    return Candidates(rows[:, :4], rows[:, 4], np.rint(rows[:, 5]).astype(np.int64), suppressed=True)


_READERS = {"v5": _read_v5, "v8": _read_v8, "end-to-end": _read_end_to_end}


def _shapes(classes: int) -> Mapping[Head, tuple[Shape, ...]]:
    """The shapes that each head can have; null is any number."""
    shapes: dict[Head, tuple[Shape, ...]] = {"end-to-end": ((1, None, 6),)}
    if classes:
        shapes["v5"] = ((1, None, 5 + classes),)
        shapes["v8"] = ((1, 4 + classes, None), (1, None, 4 + classes))
    return shapes


def _declared_head(declared: Shape, classes: int, given: Head | None) -> Head | None:
    """The head that model.json leaves no doubt about, or None where only a real output will tell. Raises Misfit."""
    shapes = _shapes(classes)
    possible = [h for h, ways in shapes.items() if any(_may_be(declared, way) for way in ways) and given in (None, h)]
    if not possible:
        raise Misfit("detections", _expected(classes, given), declared)
    certain = [head for head in possible if any(_is(declared, way) for way in shapes[head])]
    if len(certain) > 1:
        raise Misfit("detections", _one_of(certain), declared)
    return given or next(iter(certain), None)


def _found_head(shape: tuple[int, ...], classes: int, head: Head | None) -> Head:
    """The one head that reads an output of `shape`. Raises Misfit."""
    fitting = [h for h, ways in _shapes(classes).items() if any(_is(shape, way) for way in ways) and head in (None, h)]
    if len(fitting) == 1:
        return fitting[0]
    raise Misfit("detections", _one_of(fitting) if fitting else _expected(classes, head), shape)


def _is(shape: Shape, way: Shape) -> bool:
    """Whether `shape` has every number of `way`, the batch axis perhaps left free."""
    return (
        len(shape) == 3
        and shape[0] in (1, None)
        and all(w in (None, s) for w, s in zip(way[1:], shape[1:], strict=True))
    )


def _may_be(shape: Shape, way: Shape) -> bool:
    return len(shape) == 3 and all(None in (s, w) or s == w for s, w in zip(shape, way, strict=True))


def _expected(classes: int, head: Head | None) -> str:
    shapes = {h: ways for h, ways in _shapes(classes).items() if head in (None, h)}
    texts = [f"{_text(way)} ({h})" for h, ways in sorted(shapes.items()) for way in ways]
    return f"{' or '.join(texts)} for {classes} labels"


def _one_of(heads: list[Head]) -> str:
    return f"a shape of one head; this one fits {' and '.join(sorted(heads))}: say which in postprocess.head"


def _text(way: Shape) -> str:
    return f"[{', '.join('N' if side is None else str(side) for side in way)}]"
