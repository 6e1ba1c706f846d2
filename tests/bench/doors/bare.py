"""The bare script: what anyone would write first, tuned as ours is. It opens the optimised graph, decodes a JPEG at the
scale that its header allows, runs once and suppresses overlapping boxes. It knows nothing of the project."""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

MODEL, THREADS, WHOLE = "BENCH_MODEL", "BENCH_THREADS", "BENCH_WHOLE"
_SIDE = 300
_SCORE = _IOU = 0.5
_MOST = 100


class Detector:
    """The session, opened on first use: Google's server imports this before it forks, which threads do not survive."""

    def __init__(self) -> None:
        self._session: Any = None
        self._draft = not os.environ.get(WHOLE)

    def __call__(self, jpeg: bytes) -> dict[str, Any]:
        if self._session is None:
            self._session = _opened()
        image = Image.open(BytesIO(jpeg))
        width, height = image.size
        if self._draft:
            image.draft("RGB", (_SIDE, _SIDE))
        pixels = np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
        boxes, scores = self._session.run(["boxes", "scores"], {"image": pixels[None]})
        return {"image": {"width": width, "height": height}, "predictions": _found(boxes[0], scores[0], width, height)}


def _opened() -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ[THREADS])
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(os.environ[MODEL], options, providers=["CPUExecutionProvider"])


def _found(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], width: int, height: int
) -> list[dict[str, Any]]:
    rows, classes = np.nonzero(scores >= _SCORE)
    best = scores[rows, classes]
    order = np.argsort(-best)
    rows, classes, best = rows[order], classes[order], best[order]
    corners = np.clip(boxes[rows][:, [1, 0, 3, 2]], 0, 1) * [width, height, width, height]
    kept: list[int] = []
    for place in range(len(rows)):
        if len(kept) < _MOST and all(
            classes[place] != classes[other] or _overlap(corners[place], corners[other]) <= _IOU for other in kept
        ):
            kept.append(place)
    return [
        {"class_id": int(classes[place]) + 1, "score": float(best[place]), "box": corners[place].tolist()}
        for place in kept
    ]


def _overlap(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.clip(sides, 0, None)))
    both = sum(float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return common / max(both - common, 1e-9)
