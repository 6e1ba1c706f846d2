"""`parity`: every backend against every bundle on real pictures, in one table. The answers have to be the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from model_server.comparison.agreement import Agreement, Tolerance, agree
from model_server.comparison.answering import Failed, NotRun, Predicted
from model_server.comparison.arms import EXTERNAL, NAMES, Where, arm, settings, unavailable
from model_server.failures import Stopped
from model_server.tables import table
from shared import tasks
from shared.errors import ConfigurationError
from shared.manifest import Bundle, read_bundle
from shared.predictions import Detection
from shared.validation import suggest

_HEAD = ("bundle", "backend", "result", "matched", "missing", "extra", "mean IoU", "score", "box px", "warm ms", "")
_ALL = "all"
_REFERENCE = "onnx"


class Plan(msgspec.Struct, frozen=True):
    """What to compare: backends by name, whether each of them was asked for by name, and on which pictures."""

    backends: tuple[str, ...]
    named: bool
    pictures: tuple[Path, ...]
    where: Where
    tolerance: Tolerance
    threads: int = 0
    score_threshold: float | None = None


class Answers(msgspec.Struct, frozen=True):
    """What one backend found on each picture, and how long its quickest run took."""

    found: tuple[tuple[Detection, ...], ...]
    warm_ms: float


class Row(msgspec.Struct, frozen=True):
    """One backend's outcome: `same`, `differs`, `reference`, `failed` or `not run`."""

    bundle: str
    backend: str
    result: str
    agreement: Agreement | None = None
    warm_ms: float | None = None
    why: str = ""


def chosen_backends(text: str) -> tuple[tuple[str, ...], bool]:
    """`all`, or names separated by commas where `triton` and `tfserving` are all of theirs; and whether they were
    named. Raises Stopped."""
    if text == _ALL:
        return NAMES, False
    chosen: list[str] = []
    for word in text.split(","):
        several = [name for name in NAMES if name == word or (name in EXTERNAL and name.partition("-")[0] == word)]
        if not several:
            raise Stopped(f"--backends: unknown {word!r}; {suggest(word, [_ALL, *NAMES, 'triton', 'tfserving'])}")
        chosen += several
    return tuple(dict.fromkeys(chosen)), True


def parity(folders: Sequence[Path], plan: Plan) -> tuple[str, bool]:
    """The table of all bundles and backends, and whether nothing in it is a failure: nor is that nothing was compared,
    where but one backend was asked for."""
    rows = [row for folder in folders for row in _compared(_bundle(folder), plan)]
    wrong = {"differs", "failed"} | ({"not run"} if plan.named else set())
    cells = [_cells(row) for row in rows]
    report, good = table(_HEAD, cells), not any(row.result in wrong for row in rows)
    alone = bool(rows) and plan.named and len(plan.backends) == 1
    if alone or any(row.agreement for row in rows):
        return report, good
    return f"{report}\nnothing was compared: no second backend has answered", False


def _bundle(folder: Path) -> Bundle:
    try:
        return read_bundle(folder)
    except ConfigurationError as error:
        raise Stopped(str(error)) from error


def _compared(bundle: Bundle, plan: Plan) -> list[Row]:
    """The reference first: onnx, asked for or not, else the first backend that answers."""
    name = bundle.model.name
    reference: Answers | None = None
    rows: list[Row] = []
    for backend in dict.fromkeys([_REFERENCE, *plan.backends]):
        outcome = _answers(bundle, backend, plan)
        if not isinstance(outcome, Answers):
            if backend not in plan.backends:
                continue
            rows.append(Row(name, backend, "not run" if isinstance(outcome, NotRun) else "failed", why=outcome.why))
        elif reference is None:
            reference = outcome
            count = sum(map(len, outcome.found))
            why = f"{count} found in {len(plan.pictures)} pictures" if count else "nothing found: this proves nothing"
            rows.append(Row(name, backend, "reference" if count else "failed", warm_ms=outcome.warm_ms, why=why))
        else:
            rows.append(_judged(bundle, backend, reference, outcome, plan))
    if reference is None:
        rows.append(Row(name, "-", "failed", why="no backend answered, so there is nothing to compare with"))
    return rows


def _judged(bundle: Bundle, backend: str, reference: Answers, other: Answers, plan: Plan) -> Row:
    threshold = plan.score_threshold
    if threshold is None:
        threshold = getattr(tasks.build(bundle).defaults, "score_threshold", 0.0)
    pairs = list(zip(reference.found, other.found, strict=True))
    agreement = agree(pairs, threshold + plan.tolerance.score)
    result = "same" if agreement.within(plan.tolerance) else "differs"
    return Row(bundle.model.name, backend, result, agreement, other.warm_ms)


def _answers(bundle: Bundle, backend: str, plan: Plan) -> Answers | NotRun | Failed:
    why = unavailable(backend, bundle, plan.where)
    if why is not None:
        return NotRun(why)
    with arm(plan.where.pythons.get(backend)) as process:
        opened = process.open(settings(backend, bundle.folder, plan.where, plan.threads))
        if isinstance(opened, NotRun | Failed):
            return opened
        params = {} if plan.score_threshold is None else {"score_threshold": plan.score_threshold}
        found: list[Predicted] = []
        for picture in plan.pictures:
            reply = process.predict(picture, params)
            if isinstance(reply, Failed):
                return Failed(f"{picture.name}: {reply.why}")
            found.append(reply)
    detections = tuple(one.detections for one in found)
    return Answers(detections, min(one.stages_ms.get("infer", one.wall_ms) for one in found))


def _cells(row: Row) -> tuple[str, ...]:
    warm = "-" if row.warm_ms is None else f"{row.warm_ms:.1f}"
    found = row.agreement
    if found is None:
        return row.bundle, row.backend, row.result, "-", "-", "-", "-", "-", "-", warm, row.why
    counts = (str(found.matched), str(found.missing), str(found.extra))
    figures = (f"{found.mean_iou:.4f}", f"{found.max_score:.6f}", f"{found.max_px:.3f}")
    return row.bundle, row.backend, row.result, *counts, *figures, warm, row.why
