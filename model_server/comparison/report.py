"""A comparison as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from model_server.comparison.results import OWN, PICTURES, WEB, Comparison, Row, Section, plural
from model_server.tables import table

Cells: TypeAlias = Sequence[str]

PAGE, PLOT = "compare.md", "compare.png"
_NONE = "-"
_NAMED_PACKAGES = 3
_HEAD = (
    "backend", "packages MB", "its own MB", "model MB", "parameters", "load s", "first infer ms", "first whole ms",
    "infer ms", "whole ms", "CPU ms", "peak MB", "server MB", "",
)  # fmt: skip
_PACKAGES_HEAD = ("backend", "web MB", "pictures MB", "its own MB", "together MB", "Python", "its own packages (MB)")
_MEANINGS = (
    ("packages", "what is installed for the function, without bytecode; `its own` is what this backend alone needs"),
    ("model", "the files that the backend runs; where a model server has them they are not the function's"),
    ("parameters", "stored floats and narrow integers, batch statistics and tables of anchors included"),
    ("load", "from the start of the process to the open model, framework's import included; files in the page cache"),
    ("first", "the first prediction of a process: `infer` the network alone, `whole` from encoded picture to answer"),
    ("infer, whole, CPU", "the same once warm, and the processor time of the function's process for the whole"),
    ("triton-encoded", "the server decodes, prepares and post-processes, too: `infer` lasts until it has answered"),
    ("peak", "resident memory of the function's process at its highest"),
    ("server", "memory of the model server's processes, whatever else it has answered"),
)  # fmt: skip


def text(found: Comparison) -> str:
    """Aligned tables, one for each bundle and one of the packages."""
    parts = [_conditions(found)]
    for section in found.sections:
        parts += [section.bundle, table(_HEAD, _rows(section))]
    parts += ["packages", table(_PACKAGES_HEAD, _packages(found))]
    return "\n\n".join(parts)


def markdown(found: Comparison) -> str:
    """The same for a page, with what the columns mean and the plot."""
    parts = ["# Backends compared", _conditions(found), f"![The figures below as bars]({PLOT})"]
    for section in found.sections:
        rows = _rows(section)
        parts += [f"## {section.bundle}", _markdown_table(_HEAD[:-1], [row[:-1] for row in rows])]
        parts += ["\n".join(f"- {row[0]}: {_escaped(row[-1])}" for row in rows if row[-1])]
    parts += ["## Packages", _markdown_table(_PACKAGES_HEAD, _packages(found))]
    parts += ["## What is measured", "\n".join(f"- **{name}**: {meaning}" for name, meaning in _MEANINGS)]
    return "\n\n".join(filter(None, parts)) + "\n"


def write(found: Comparison, folder: Path) -> None:
    """Writes compare.md and the plot that it shows into `folder`. Raises Stopped."""
    from model_server.comparison.plots import draw

    folder.mkdir(parents=True, exist_ok=True)
    draw(found, folder / PLOT)
    (folder / PAGE).write_text(markdown(found), encoding="utf-8")


def _conditions(found: Comparison) -> str:
    threads = f"{found.threads} threads" if found.threads else "as many threads as cores"
    rounds, passes = plural(found.rounds, "fresh process"), plural(found.passes, "warm pass")
    pictures = f"{len(found.pictures)} pictures: {', '.join(found.pictures)}"
    how = f"Medians of {rounds} a backend, each with {passes} over {pictures}; {threads}."
    return " ".join([f"{found.machine}.", how, *(f"{note}." for note in found.notes)])


def _rows(section: Section) -> list[Cells]:
    return [_cells(row) for row in section.rows]


def _cells(row: Row) -> Cells:
    figures = row.figures
    before = (
        row.backend,
        _number(row.packages_mb(), 1),
        _number(row.packages_mb(OWN), 1),
        _number(row.model_mb, 2),
        _NONE if row.parameters is None else f"{row.parameters:,}",
    )
    notes = "; ".join(row.notes)
    if figures is None:
        return *before, *[_NONE] * 8, notes
    times = (figures.first_infer_ms, figures.first_whole_ms, figures.infer_ms, figures.whole_ms, figures.cpu_ms)
    memory = (_number(figures.peak_mb, 1), _number(figures.server_mb, 1))
    return *before, f"{figures.load_s:.2f}", *(f"{ms:.1f}" for ms in times), *memory, notes


def _packages(found: Comparison) -> list[Cells]:
    """A row for each backend that could be weighed: packages are the same for every bundle."""
    rows = {row.backend: row for section in found.sections for row in section.rows if row.packages_mb() is not None}
    return [
        (
            row.backend,
            *(_number(row.packages_mb(*groups), 1) for groups in ((WEB,), (PICTURES,), (OWN,), ())),
            row.weighed.python if row.weighed else _NONE,
            _largest(row),
        )
        for row in rows.values()
    ]


def _largest(row: Row) -> str:
    named = [f"{one.name} {one.version} ({one.size_bytes / 1e6:.1f})" for one in row.packages[:_NAMED_PACKAGES]]
    rest = len(row.packages) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest else "")


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _markdown_table(head: Cells, rows: Sequence[Cells]) -> str:
    """Words to the left, figures to the right."""
    right = [all(row[at][:1].isdigit() or row[at] == _NONE for row in rows) for at in range(len(head))]
    rule = ["---:" if is_right else "---" for is_right in right]
    return "\n".join(f"| {' | '.join(map(_escaped, cells))} |" for cells in (head, rule, *rows))


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
