"""How far two lists of detections of the same pictures agree."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.predictions import Detection

_SAME_THING_IOU = 0.5


class Tolerance(msgspec.Struct, frozen=True):
    """What still counts as the same answer: the largest difference of a score and of a box's side in source pixels,
    and the share of the detections that must be matched."""

    score: float
    px: float
    matched: float = 1.0


EXACT = Tolerance(1e-3, 0.5)
"""What backends may differ by that run the same float32 network."""


class Agreement(msgspec.Struct, frozen=True):
    """`missing` were found by the reference only, `extra` by the other only; those at the score threshold, where the
    tolerance alone decides, are in neither. The figures are of the `matched` ones, the box's in source pixels."""

    matched: int = 0
    missing: int = 0
    extra: int = 0
    mean_iou: float = 1.0
    max_score: float = 0.0
    mean_score: float = 0.0
    max_px: float = 0.0

    @property
    def share(self) -> float:
        """The matched ones among all that either found; 1 where both found nothing."""
        return self.matched / self.total if self.total else 1.0

    @property
    def total(self) -> int:
        return self.matched + self.missing + self.extra

    def within(self, tolerance: Tolerance) -> bool:
        return self.max_score <= tolerance.score and self.max_px <= tolerance.px and self.share >= tolerance.matched


Found = Sequence[Detection]


def agree(pairs: Sequence[tuple[Found, Found]], at_threshold: float = 0.0) -> Agreement:
    """The agreement over all pictures, each a pair of what the reference and the other found. Detections that only one
    found do not count where their score is below `at_threshold`."""
    matches: list[tuple[Detection, Detection]] = []
    missing = extra = 0
    for reference, other in pairs:
        found = match(reference, other)
        matches += found
        missing += _left(reference, [ours for ours, _ in found], at_threshold)
        extra += _left(other, [theirs for _, theirs in found], at_threshold)
    if not matches:
        return Agreement(0, missing, extra)
    scores = [abs(ours.score - theirs.score) for ours, theirs in matches]
    return Agreement(
        len(matches),
        missing,
        extra,
        sum(iou(ours.box, theirs.box) for ours, theirs in matches) / len(matches),
        max(scores),
        sum(scores) / len(scores),
        max(abs(a - b) for ours, theirs in matches for a, b in zip(ours.box, theirs.box, strict=True)),
    )


def match(reference: Found, other: Found) -> list[tuple[Detection, Detection]]:
    """Pairs of one label and an IoU of at least 0.5, each detection in one pair at most, the closest first."""
    candidates = sorted(
        (
            (-overlap, at, beside)
            for at, ours in enumerate(reference)
            for beside, theirs in enumerate(other)
            if ours.label == theirs.label and (overlap := iou(ours.box, theirs.box)) >= _SAME_THING_IOU
        ),
    )
    pairs: dict[int, int] = {}
    for _, at, beside in candidates:
        if at not in pairs and beside not in pairs.values():
            pairs[at] = beside
    return [(reference[at], other[beside]) for at, beside in sorted(pairs.items())]


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes xyxy."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def _left(found: Found, matched: Sequence[Detection], at_threshold: float) -> int:
    """How many are in no pair; equal detections may be there twice, so they are told apart by identity."""
    taken = {id(one) for one in matched}
    return sum(id(one) not in taken and one.score >= at_threshold for one in found)
