"""Rows of the result, as a table for people and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Literal

from tests.bench.arms import CONTROL, Sample, Samples
from tests.bench.statistics import Comparison, Verdict, compared, spread, verdict

Metric = Literal["wall_ms", "cpu_ms", "memory_mb"]


@dataclass(frozen=True, slots=True)
class Row:
    """Ours against one other way. `compared` is ours / theirs or ours - theirs; `control` our arm against itself."""

    benchmark: str
    metric: Metric
    ours_name: str
    anchor_name: str
    comparison: Comparison
    target: float | None
    verdict: Verdict
    ours: float | None = None
    anchor: float | None = None
    compared: float | None = None
    spread: float | None = None
    control: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found: rows, and further tables by title."""

    rows: Sequence[Row]
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)


def row(
    benchmark: str,
    samples: Samples,
    ours_name: str,
    anchor_name: str,
    metric: Metric,
    *,
    at_most: float | None = None,
    comparison: Comparison = "ratio",
) -> Row:
    """The row of two arms of one run; an anchor that is not among them is reported as missing."""
    if anchor_name not in samples:
        return Row(benchmark, metric, ours_name, anchor_name, comparison, at_most, "missing")
    ours, anchor, again = (
        [getattr(sample, metric) for sample in samples[name]] for name in (ours_name, anchor_name, ours_name + CONTROL)
    )
    found = compared(ours, anchor, comparison)
    control = median(compared(again, ours, "ratio"))
    return Row(
        benchmark, metric, ours_name, anchor_name, comparison, at_most,
        verdict(median(found), at_most, control), median(ours), median(anchor), median(found), spread(found), control,
    )  # fmt: skip


def absolute(benchmark: str, samples: Samples, ours_name: str, metric: Metric, at_most: float) -> Row:
    """The row of an arm that must not pass a figure, whatever the others do."""
    nothing = {_NOTHING: [Sample()] * len(samples[ours_name])}
    return row(benchmark, {**samples, **nothing}, ours_name, _NOTHING, metric, at_most=at_most, comparison="difference")


_NOTHING = "(absolute)"
_HEADS = ("benchmark", "", "ours", "against", "", "compared", "±", "target", "A/A", "verdict")
_UNITS: dict[Metric, str] = {"wall_ms": "ms", "cpu_ms": "ms CPU", "memory_mb": "MB"}


def text(rows: Sequence[Row]) -> str:
    """The rows as an aligned table, and what was missing said again below it."""
    lines = table([_HEADS, *(_cells(row) for row in rows)])
    missing = sorted({row.anchor_name for row in rows if row.verdict == "missing"})
    if missing:
        lines += f"\nMISSING, so not compared: {', '.join(missing)} (pip install -r tests/bench/requirements.txt)\n"
    return lines


def table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, cells, widths)).rstrip() + "\n" for cells in rows)


def as_json(results: Mapping[str, Result], rounds: int) -> dict[str, object]:
    """Everything that was found, with what it was found on."""
    return {
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()},
        "rounds": rounds,
        "benchmarks": {
            name: {"rows": [asdict(row) for row in result.rows], "tables": result.tables}
            for name, result in results.items()
        },
    }


def _cells(row: Row) -> tuple[str, ...]:
    unit = _UNITS[row.metric]
    sign, digits = ("x", ".3f") if row.comparison == "ratio" else (unit, "+.2f")
    target = "" if row.target is None else f"<= {row.target:.3g} {sign}"
    if row.ours is None or row.anchor is None or row.compared is None or row.spread is None or row.control is None:
        return (row.benchmark, row.ours_name, "", row.anchor_name, "", "", "", target, "", row.verdict.upper())
    return (
        row.benchmark,
        row.ours_name,
        f"{row.ours:.2f} {unit}",
        row.anchor_name,
        f"{row.anchor:.2f} {unit}",
        f"{row.compared:{digits}} {sign}",
        f"{row.spread:.3f}",
        target,
        f"{row.control:.3f}",
        row.verdict,
    )
