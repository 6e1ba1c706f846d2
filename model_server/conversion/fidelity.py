"""What a conversion has cost: the source and the result on the same pictures, output by output and as detections."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from model_server.comparison.agreement import Agreement, Tolerance, agree
from model_server.tables import table
from shared.call import Call
from shared.images import Decoding

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.predictions import Prediction
    from shared.tasks import Task
    from shared.tensors import Tensors

_MAX_PIXELS = 64_000_000
_TIMEOUT_S = 600.0
_HEAD = ("output", "max difference", "mean difference")


@dataclass(frozen=True)
class Side:
    """A model that can be asked: its task, and its networks by name."""

    task: Task
    runs: Mapping[str, Run]


@dataclass(frozen=True)
class Asked:
    """One use of a network."""

    inputs: Tensors
    outputs: Tensors
    ms: float


@dataclass
class Recorder:
    """A Run (see shared.backends) that remembers what another one was given and what it answered."""

    run: Run
    asked: list[Asked] = field(default_factory=list)

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        begin = perf_counter()
        outputs = self.run(inputs, call)
        self.asked.append(Asked(inputs, outputs, (perf_counter() - begin) * 1e3))
        return outputs

    def ready(self) -> bool:
        return self.run.ready()

    def close(self) -> None:
        self.run.close()


class Difference(msgspec.Struct, frozen=True):
    """Of one output over all pictures; None where its shape is another one."""

    output: str
    largest: float | None
    mean: float | None


class Fidelity(msgspec.Struct, frozen=True):
    """The report: differences by output, agreement of the detections, and the quickest run of each side."""

    differences: tuple[Difference, ...]
    agreement: Agreement
    pictures: int
    source_ms: float
    result_ms: float

    def text(self) -> str:
        rows = [(one.output, _number(one.largest), _number(one.mean)) for one in self.differences]
        found = self.agreement
        lines = (
            table(_HEAD, rows),
            f"{self.pictures} pictures: {found.matched} detections matched, {found.missing} missing, "
            f"{found.extra} extra; mean IoU {found.mean_iou:.4f}, scores differ by at most {found.max_score:.6f}, "
            f"boxes by {found.max_px:.3f} px",
            f"one run: source {self.source_ms:.1f} ms, result {self.result_ms:.1f} ms",
        )
        return "\n".join(lines)

    def note(self, kind: str) -> str:
        """What model.json says of an artifact that was made inexact."""
        return (
            f"{kind}: {self.agreement.share:.2f} of the detections matched, "
            f"mean score difference {self.agreement.mean_score:.3f} on {self.pictures} pictures"
        )

    def shortcoming(self, tolerance: Tolerance) -> str | None:
        """Why the result is not good enough; None where it is."""
        found = self.agreement
        if found.total == 0:
            return "nothing was found on any picture, which proves nothing: give --pictures with what the model knows"
        if found.share < tolerance.matched:
            return f"{found.share:.2f} of the detections matched, expected at least {tolerance.matched:.2f}"
        if found.max_score > tolerance.score:
            return f"a score differs by {found.max_score:.6f}, expected at most {tolerance.score:g}"
        if found.max_px > tolerance.px:
            return f"a box differs by {found.max_px:.3f} px, expected at most {tolerance.px:g}"
        return None


def ask(side: Side, network: str, picture: Path) -> tuple[Prediction[Any], list[Asked]]:
    """The prediction for one picture as the service makes it, and each use of `network` for it. Raises Failure."""
    recorder = Recorder(side.runs[network])
    params = side.task.defaults
    source = Decoding(picture.read_bytes(), _MAX_PIXELS)
    plan = side.task.plan(source, params, sys.maxsize)
    runs = {**side.runs, network: recorder}
    return side.task.predict(source, plan, params, runs, Call("fidelity", _TIMEOUT_S)), recorder.asked


def compared(source: Side, result: Side, network: str, pictures: Sequence[Path], tolerance: Tolerance) -> Fidelity:
    """`result` beside `source` on every picture. Raises Failure."""
    pairs, uses = [], []
    for picture in [pictures[0], *pictures]:  # the first run of a network takes longer: it is not kept
        ours, asked = ask(source, network, picture)
        theirs, answered = ask(result, network, picture)
        pairs.append((ours.predictions, theirs.predictions))
        uses.append(list(zip(asked, answered, strict=True)))
    kept = [use for uses_of_picture in uses[1:] for use in uses_of_picture]
    threshold: float = getattr(source.task.defaults, "score_threshold", 0.0)
    return Fidelity(
        _differences([(one.outputs, other.outputs) for one, other in kept]),
        agree(pairs[1:], threshold + min(tolerance.score, 0.05)),
        len(pictures),
        min(one.ms for one, _ in kept),
        min(other.ms for _, other in kept),
    )


def _differences(pairs: Sequence[tuple[Tensors, Tensors]]) -> tuple[Difference, ...]:
    """Of each output of the source that the result has too."""
    names = [name for name in pairs[0][0] if name in pairs[0][1]]
    return tuple(_difference(name, [(ours[name], theirs[name]) for ours, theirs in pairs]) for name in names)


def _difference(name: str, pairs: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> Difference:
    if any(ours.shape != theirs.shape for ours, theirs in pairs):
        return Difference(name, None, None)
    apart = np.concatenate([_apart(ours, theirs) for ours, theirs in pairs])
    return Difference(name, float(apart.max(initial=0.0)), float(apart.mean()) if apart.size else 0.0)


def _apart(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """|a - b|, 0 where both are the same infinity or no number, infinite where only one is."""
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isnan(apart), np.inf, apart)


def _number(value: float | None) -> str:
    return "another shape" if value is None else f"{value:.3g}"
