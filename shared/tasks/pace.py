"""Whether what is left to do of a request will be done in time, told from how long the first of it has taken."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shared.errors import DeadlineExceeded
from shared.tasks import crops

if TYPE_CHECKING:
    from shared.call import Call
    from shared.geometry import HW
    from shared.parameters import PromptableParameters

_SAFE = 0.8  # of the time, when less is proposed
_FIRST = 2  # batches; the first of all also pays for its memory


class Work(NamedTuple):
    """Parts of a picture to encode, and points to ask the decoder about."""

    parts: int
    points: int


class Pace:
    """What a part and a point have taken so far, at their best, so that one slow moment ends no request."""

    def __init__(self, source_hw: HW, params: PromptableParameters) -> None:
        self._source_hw = source_hw
        self._params = params
        self._part_s = 0.0
        self._point_s = inf
        self._batches = 0

    def encoded(self, seconds: float) -> None:
        self._part_s = min(seconds, self._part_s or inf)

    def decoded(self, points: int, seconds: float) -> None:
        self._point_s = min(seconds / points, self._point_s)
        self._batches += 1

    def check(self, left: Work, call: Call) -> None:
        """Raises DeadlineExceeded, with what would be done in time, as soon as what is `left` will not be."""
        call.check()
        needed_s = self._needed_s(left)
        if needed_s <= call.remaining_s:
            return
        asked = amount(self._source_hw, self._params)
        points = f"{asked.points} points" + (f" in {asked.parts} parts" if asked.parts > 1 else "")
        raise DeadlineExceeded(
            f"{points} need {'about' if self._known else 'more than'} {self._needed_s(asked):.0f} s; {needed_s:.0f} s "
            f"are to go, and "
            f"{call.remaining_s:.0f} s are left of {call.timeout_s:g}: {self._way_out(call.timeout_s)}",
            limit=call.timeout_s,
            found=round(self._needed_s(asked), 1),
            points=asked.points,
        )

    @property
    def _known(self) -> bool:
        """Whether it can be told what a point takes."""
        return self._batches >= _FIRST

    def _needed_s(self, work: Work) -> float:
        return work.parts * self._part_s + (work.points * self._point_s if self._known else 0.0)

    def _way_out(self, timeout_s: float) -> str:
        if not self._known:
            return "ask for fewer crop_n_layers"
        for less, told in _lesser(self._params):
            needed_s = self._needed_s(amount(self._source_hw, less))
            if needed_s <= _SAFE * timeout_s:
                return f"ask for {told} (about {needed_s:.0f} s)"
        return "name points or boxes, each of which takes far less"


def amount(source_hw: HW, params: PromptableParameters) -> Work:
    """All that is asked for of a picture of `source_hw`."""
    parts = crops.parts(source_hw, params)
    return Work(len(parts), sum(part.points for part in parts))


def _lesser(params: PromptableParameters) -> Iterator[tuple[PromptableParameters, str]]:
    """Requests for less, the greatest first: fewer layers, then fewer points."""
    for layers in range(params.crop_n_layers - 1, -1, -1):
        yield msgspec.structs.replace(params, crop_n_layers=layers), f"crop_n_layers {layers}"
    for per_side in range(params.points_per_side - 1, 0, -1):
        less = msgspec.structs.replace(params, crop_n_layers=0, points_per_side=per_side)
        yield less, f"points_per_side {per_side}" + (" and crop_n_layers 0" if params.crop_n_layers else "")
