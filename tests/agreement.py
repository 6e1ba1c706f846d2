"""Whether two answers to one picture are the same, as far as backends may differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model_server.comparison.agreement import EXACT


def agree(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> None:
    """The same labels in the same order, scores within 1e-3, corners of boxes within half a pixel."""
    assert [each["label"] for each in found] == [each["label"] for each in expected]
    assert expected, "nothing was found that could agree"
    for want, got in zip(expected, found, strict=True):
        assert abs(want["score"] - got["score"]) <= EXACT.score
        assert max(abs(a - b) for a, b in zip(want["box"], got["box"], strict=True)) <= EXACT.px
