"""What a task answers: frozen, free of wire formats and of numpy."""

from __future__ import annotations

import msgspec


class Detection(msgspec.Struct, frozen=True):
    """One found object. `box` is [x1, y1, x2, y2], floats in upright source pixels, max exclusive."""

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]


class Prediction(msgspec.Struct, frozen=True):
    """The answer for one picture: its upright size in source pixels, what was found by falling score, and notes."""

    source_hw: tuple[int, int]
    predictions: tuple[Detection, ...]
    notes: tuple[str, ...] = ()
