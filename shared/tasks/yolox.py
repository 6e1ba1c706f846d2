"""Family `yolox`: one output [1, N, 5+C] (x, y, width, height, objectness, a score a class) relative to grid cells.

The cells go level by level in the order of `strides`, each level row by row. A centre is (x + column, y + row) times
stride, a size exp(width, height) times stride; models of four levels (P6) have strides 8, 16, 32, 64. Scores have
passed their sigmoid inside the graph. `decoded: true` is for exports made with `--decode_in_inference`, whose boxes are
in tensor pixels. The networks take BGR 0..255 as it is (no scale, mean or std), letterboxed at the top left on 114:
`"resize": "letterbox", "anchor": "top-left", "colour": "BGR"`.
Source: yolox/models/yolo_head.py, yolox/utils/demo_utils.py and tools/export_onnx.py of Megvii-BaseDetection/YOLOX.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

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
    from shared.geometry import HW
    from shared.manifest import Bundle
    from shared.tensors import Float32, Tensors

_ROLES = {"detections": ("output", "output0", "detections", "predictions")}

Strides = Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1)]


class YoloxOptions(Options, frozen=True, kw_only=True):
    strides: Strides = (8, 16, 32)
    decoded: bool = False


def task(bundle: Bundle) -> DetectionTask:
    options = read_options(bundle, YoloxOptions)
    roles = outputs_by_role(bundle, _ROLES)
    strides = None if options.decoded else options.strides
    return DetectionTask(bundle, options, roles, partial(_decode, classes=len(bundle.labels), strides=strides))


def _decode(
    outputs: Tensors, model_hw: HW, score_threshold: float, *, classes: int, strides: tuple[int, ...] | None
) -> Candidates:
    """`detections` [1, N, 5+C] -> Candidates, one a box, of its best class; `strides` None for decoded boxes."""
    output = outputs["detections"]
    if output.ndim != 3 or output.shape[0] != 1 or output.shape[2] != 5 + classes or not classes:
        raise Misfit("detections", f"[1, N, {5 + classes}] for {classes} labels", output.shape)
    rows = output[0].astype(np.float32, copy=False)
    # No class score is above 1, so a box is never better than its objectness.
    good = np.flatnonzero(rows[:, 4] >= score_threshold)
    boxes = rows[good, :4]
    if strides is not None:
        cells = _cells(model_hw, strides)
        if len(cells) != len(rows):
            columns = 5 + classes
            levels = ", ".join(map(str, strides))
            raise Misfit("detections", f"[1, {len(cells)}, {columns}] for strides {levels}", output.shape)
        boxes = _on_grid(boxes, cells[good])
    return best_class(cxcywh_to_xyxy(boxes), rows[good, 4:5] * rows[good, 5:], score_threshold)


def _on_grid(raw: Float32, cells: Float32) -> Float32:
    """Raw boxes [N, 4] and their cells [N, 3] -> cx, cy, width, height in tensor pixels; infinite where exp is."""
    corner, stride = cells[:, :2], cells[:, 2:]
    return np.concatenate([(raw[:, :2] + corner) * stride, np.exp(raw[:, 2:]) * stride], axis=1)


@lru_cache(maxsize=8)
def _cells(model_hw: HW, strides: tuple[int, ...]) -> Float32:
    """The grid cells [N, 3] float32 of a tensor, as column, row and stride."""
    levels = []
    for stride in strides:
        row, column = np.indices((model_hw[0] // stride, model_hw[1] // stride))
        levels.append(np.stack([column.ravel(), row.ravel(), np.full(row.size, stride)], axis=1))
    cells = np.concatenate(levels).astype(np.float32)
    cells.flags.writeable = False
    return cells
