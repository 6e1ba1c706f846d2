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

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

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
    import numpy.typing as npt

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
    heads = Heads(len(bundle.labels), options.head)
    spec = roles["detections"]
    try:
        heads = replace(heads, given=heads.declared(spec.shape))
    except Misfit as misfit:
        raise unreadable(bundle, spec.name, misfit) from misfit
    decode = partial(_decode, heads=heads, normalised=options.coordinates == "normalised")
    return DetectionTask(bundle, options, roles, decode)


def unreadable(bundle: Bundle, output: str, misfit: Misfit) -> ConfigurationError:
    """A declared shape that the family cannot read."""
    return ConfigurationError(
        f"networks.detector.outputs: {output!r} has shape {misfit.found}, "
        f"family {bundle.model.family!r} expects {misfit.expected}"
    )


@dataclass(frozen=True, slots=True)
class Heads:
    """The shapes that a network's output can have: of the head that is `given`, or of any, for so many classes; behind
    each box's own columns come `extra` ones."""

    classes: int
    given: Head | None = None
    extra: int = 0

    def fits(self, shape: Shape) -> bool:
        """Whether an output of `shape` may be one of a head's."""
        return any(_may_be(shape, way) for ways in self._shapes().values() for way in ways)

    def declared(self, declared: Shape) -> Head | None:
        """The head that model.json leaves no doubt about, or None where only a real output will tell. Raises Misfit."""
        shapes = self._shapes()
        possible = [head for head, ways in shapes.items() if any(_may_be(declared, way) for way in ways)]
        if not possible:
            raise Misfit("detections", self._expected(), declared)
        certain = [head for head in possible if any(_is(declared, way) for way in shapes[head])]
        if len(certain) > 1:
            raise Misfit("detections", _one_of(certain), declared)
        return self.given or next(iter(certain), None)

    def found(self, shape: tuple[int, ...]) -> Head:
        """The one head that reads an output of `shape`. Raises Misfit."""
        fitting = [head for head, ways in self._shapes().items() if any(_is(shape, way) for way in ways)]
        if len(fitting) == 1:
            return fitting[0]
        raise Misfit("detections", _one_of(fitting) if fitting else self._expected(), shape)

    def rows(self, output: npt.NDArray[Any], head: Head) -> Float32:
        """`output` [1, N, columns] or [1, columns, N] as rows [N, columns]."""
        rows: Float32 = output[0].astype(np.float32, copy=False)
        return rows.T if head == "v8" and rows.shape[0] == 4 + self.classes + self.extra else rows

    def _shapes(self) -> dict[Head, tuple[Shape, ...]]:
        """The shapes of each head; null is any number."""
        shapes: dict[Head, tuple[Shape, ...]] = {"end-to-end": ((1, None, 6 + self.extra),)}
        if self.classes:
            columns = self.classes + self.extra
            shapes["v5"] = ((1, None, 5 + columns),)
            shapes["v8"] = ((1, 4 + columns, None), (1, None, 4 + columns))
        return {head: ways for head, ways in shapes.items() if self.given in (None, head)}

    def _expected(self) -> str:
        texts = [f"{_text(way)} ({head})" for head, ways in sorted(self._shapes().items()) for way in ways]
        beside = f" and {self.extra} coefficients" if self.extra else ""
        return f"{' or '.join(texts)} for {self.classes} labels{beside}"


def candidates(
    rows: Float32, head: Head, classes: int, model_hw: HW, score_threshold: float, *, normalised: bool
) -> Candidates:
    """Rows [N, columns] of `head` -> Candidates, one a box, of its best class."""
    found = _READERS[head](rows, classes, score_threshold)
    if not normalised:
        return found
    height, width = model_hw
    return replace(found, boxes_xyxy=found.boxes_xyxy * np.array([width, height, width, height], np.float32))


def _decode(outputs: Tensors, model_hw: HW, score_threshold: float, *, heads: Heads, normalised: bool) -> Candidates:
    output = outputs["detections"]
    head = heads.found(output.shape)
    return candidates(heads.rows(output, head), head, heads.classes, model_hw, score_threshold, normalised=normalised)


def _read_v5(rows: Float32, classes: int, score_threshold: float) -> Candidates:
    # No class score is above 1, so a box is never better than its objectness; most end here.
    good = np.flatnonzero(rows[:, 4] >= score_threshold)
    rows = rows[good]
    found = best_class(cxcywh_to_xyxy(rows[:, :4]), rows[:, 4:5] * rows[:, 5 : 5 + classes], score_threshold)
    return replace(found, rows=good[found.rows])


def _read_v8(rows: Float32, classes: int, score_threshold: float) -> Candidates:
    return best_class(cxcywh_to_xyxy(rows[:, :4]), rows[:, 4 : 4 + classes], score_threshold)


def _read_end_to_end(rows: Float32, classes: int, score_threshold: float) -> Candidates:  # noqa: ARG001
    good = np.flatnonzero((rows[:, 4] >= score_threshold) & np.isfinite(rows[:, 5]))
    rows = rows[good]
    return Candidates(rows[:, :4], rows[:, 4], np.rint(rows[:, 5]).astype(np.int64), suppressed=True, rows=good)


_READERS = {"v5": _read_v5, "v8": _read_v8, "end-to-end": _read_end_to_end}


def _is(shape: Shape, way: Shape) -> bool:
    """Whether `shape` has every number of `way`, the batch axis perhaps left free."""
    return (
        len(shape) == 3
        and shape[0] in (1, None)
        and all(w in (None, s) for w, s in zip(way[1:], shape[1:], strict=True))
    )


def _may_be(shape: Shape, way: Shape) -> bool:
    return len(shape) == 3 and all(None in (s, w) or s == w for s, w in zip(shape, way, strict=True))


def _one_of(heads: list[Head]) -> str:
    return f"a shape of one head; this one fits {' and '.join(sorted(heads))}: say which in postprocess.head"


def _text(way: Shape) -> str:
    return f"[{', '.join('N' if side is None else str(side) for side in way)}]"
