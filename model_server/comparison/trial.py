"""One backend tried in a process of its own: loaded, asked for the first time, asked again, its memory read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import msgspec

from model_server.comparison.answering import Failed, NotRun, Predicted
from model_server.comparison.arms import Arm, arm
from model_server.comparison.machine import resident_mb
from model_server.comparison.results import Figures


class Trial(msgspec.Struct, frozen=True):
    """What one process took. `load_s` counts from its start until the model is open."""

    load_s: float
    first: Predicted
    warm: tuple[Predicted, ...]
    peak_mb: float
    server_mb: float | None


def tried(
    python: str | None, settings: dict[str, Any], pictures: Sequence[Path], passes: int, server_pid: int | None
) -> Trial | NotRun | Failed:
    """Each picture once, since the first of a size may be slow; then `passes` times all of them, which count."""
    begin = perf_counter()
    with arm(python) as process:
        opened = process.open(settings, warm_up=False)
        load_s = perf_counter() - begin
        if isinstance(opened, NotRun | Failed):
            return opened
        found = _answers(process, [*pictures, *(passes * list(pictures))])
        if isinstance(found, Failed):
            return found
        measured = process.measure()
        if isinstance(measured, Failed):
            return measured
        server_mb = None if server_pid is None else resident_mb(server_pid)
    return Trial(load_s, found[0], tuple(found[len(pictures) :]), measured.peak_mb, server_mb)


def figures(trials: Sequence[Trial]) -> Figures:
    """The medians: of what happens once in a process over the processes, of warm predictions over all of them."""
    warm = [answer for trial in trials for answer in trial.warm]
    return Figures(
        median(trial.load_s for trial in trials),
        median(_infer_ms(trial.first) for trial in trials),
        median(trial.first.wall_ms for trial in trials),
        median(map(_infer_ms, warm)),
        median(answer.wall_ms for answer in warm),
        median(answer.cpu_ms for answer in warm),
        median(trial.peak_mb for trial in trials),
        _median_of_known(trial.server_mb for trial in trials),
    )


def _answers(process: Arm, pictures: Sequence[Path]) -> list[Predicted] | Failed:
    found = []
    for picture in pictures:
        reply = process.predict(picture)
        if isinstance(reply, Failed):
            return Failed(f"{picture.name}: {reply.why}")
        found.append(reply)
    return found


def _infer_ms(answer: Predicted) -> float:
    """The network's own time; where the whole picture is sent to the model server, the time until it has answered."""
    stages = answer.stages_ms
    return stages["infer"] if "infer" in stages else stages["forward"]


def _median_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
