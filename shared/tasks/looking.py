"""One request for everything in a picture, part by part and batch by batch, within its memory and its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import OutOfMemory
from shared.images import Image
from shared.masks.placed import Crop
from shared.predictions import Embedding
from shared.tasks import Plan, crops
from shared.tasks.crops import Part
from shared.tasks.pace import Pace, Work
from shared.tasks.prompts import FOREGROUND
from shared.tasks.segmenter import Encoded, Segmenter
from shared.tasks.sieve import Kept, Sieve

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.call import Call
    from shared.geometry import HW
    from shared.images import Decoding
    from shared.parameters import PromptableParameters
    from shared.tensors import Float32


class Looking(Plan, frozen=True, kw_only=True):
    """A Plan for automatic masks: where to look, at how many points at once, how many bytes of logits to hold, and the
    embedding that was sent."""

    parts: tuple[Part, ...]
    points_per_batch: int
    logits_bytes: int
    given: Encoded | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Look:
    """One request under way."""

    segmenter: Segmenter
    picture: Decoding
    plan: Looking
    params: PromptableParameters
    runs: Mapping[str, Run]
    call: Call
    image: Image | None = None
    embedding: Embedding | None = None
    at_once: int = field(init=False)
    left: Work = field(init=False)
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self.at_once = self.plan.points_per_batch
        self.left = Work(len(self.plan.parts), sum(part.points for part in self.plan.parts))
        self.pace = Pace(self.source_hw, self.params)

    @property
    def source_hw(self) -> HW:
        return self.picture.header.upright_hw

    @property
    def notes(self) -> tuple[str, ...]:
        planned = self.plan.points_per_batch
        short = f"memory was short: the points were looked at {self.at_once} at a time, not {planned}"
        return (short,) if self.at_once < planned else ()

    def kept(self) -> list[Kept]:
        """What is worth keeping in each of the parts, the whole picture's first."""
        kept: list[Kept] = []
        for part in self.plan.parts:
            encoded = self.plan.given or self._encoded(part)
            self._done(parts=1)
            if self.params.return_embedding and encoded.crop is None:
                self.embedding = self.segmenter.embedding(encoded, self.params.logits_dtype)
            kept += self._of_part(encoded, part)
        return kept

    def _encoded(self, part: Part) -> Encoded:
        (crop, crop_hw), decoded_hw = crop_of(part, self.source_hw), self.plan.decode_hw or self.source_hw
        began, held = monotonic(), self.segmenter.holds(self.picture, crop, crop_hw, decoded_hw)
        encoded = self.segmenter.encoded(
            self.picture,
            lambda: self._pixels(part),
            self.runs,
            self.call,
            crop=crop,
            crop_hw=crop_hw,
            decoded_hw=decoded_hw,
        )
        if not held:
            self.pace.encoded(monotonic() - began)
        return encoded

    def _pixels(self, part: Part) -> Image:
        """Those of `part`; the whole picture's stay as long as there may be parts to come."""
        if len(self.plan.parts) == 1:
            return self.picture.image(self.plan.decode_hw, self.call)
        if self.image is None:
            self.image = self.picture.image(self.plan.decode_hw, self.call)
        return Image(self.image.rgb[part.y1 : part.y2, part.x1 : part.x2], part.hw)

    def _of_part(self, encoded: Encoded, part: Part) -> list[Kept]:
        sieve = Sieve(self.params, part, self.segmenter.enlargement(encoded), self.plan.logits_bytes)
        points = crops.grid(part)
        begin = 0
        while begin < len(points):
            began = monotonic()
            batch = points[begin : begin + self.at_once]
            if self._sifted(encoded, batch, sieve):
                begin += len(batch)
                self.pace.decoded(len(batch), monotonic() - began)
                self._done(points=len(batch))
            else:
                self.at_once = len(batch) // 2
        with self.call.stage("postprocess"):
            return sieve.kept(self.call)

    def _sifted(self, encoded: Encoded, points: Float32, sieve: Sieve) -> bool:
        """Whether there was memory to ask the decoder about so many points at once. Raises OutOfMemory where there was
        none even for one."""
        labels = np.full((len(points), 1), FOREGROUND, np.float32)
        try:
            decoded = self.segmenter.decode(encoded, points[:, None], labels, self.runs, self.call)
        except OutOfMemory:
            if len(points) == 1:
                raise
            return False
        with self.call.stage("postprocess"):
            sieve.add(decoded.several() if self.params.multimask else decoded.single(), points, self.call)
        return True

    def _done(self, *, parts: int = 0, points: int = 0) -> None:
        self.left = Work(self.left.parts - parts, self.left.points - points)
        self.pace.check(self.left, self.call)


def crop_of(part: Part, source_hw: HW) -> tuple[Crop | None, HW | None]:
    """How the networks are told of a part; nothing for the whole picture."""
    return (None, None) if part.hw == source_hw else (Crop(part.y1, part.x1, source_hw), part.hw)
