"""What many noisy rounds say."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles
from typing import Literal

Comparison = Literal["ratio", "difference"]
Verdict = Literal["reached", "missed", "noisy", "missing", "for scale"]

_SAME = 0.05


def compared(ours: Sequence[float], theirs: Sequence[float], comparison: Comparison) -> list[float]:
    """Round by round ours / theirs, or ours - theirs: what slows a whole round falls out of it."""
    rounds = zip(ours, theirs, strict=True)
    return [our / their if comparison == "ratio" else our - their for our, their in rounds]


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4)
    return (high - low) / 2


def verdict(found: float, target: float | None, control: float) -> Verdict:
    """Whether `found` is at most `target`; told only by a run in which one arm equals itself (`control` near 1)."""
    if target is None:
        return "for scale"
    if abs(control - 1) > _SAME:
        return "noisy"
    return "reached" if found <= target else "missed"
