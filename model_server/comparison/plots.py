"""A comparison as a picture: one small bar chart for each question, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from model_server.comparison.results import OWN, PICTURES, WEB, Comparison, Row, Section, plural
from model_server.failures import Stopped

# Okabe and Ito's palette, which people who see colours differently can tell apart, too.
_INSIDE, _OUTSIDE, _COMMON, _INK, _FAINT = "#0072B2", "#D55E00", "#BFBFBF", "#222222", "#777777"
_PALE = 0.4
_COLUMNS = 3
_WIDTH_IN, _BAR_IN, _PANEL_IN, _HEAD_IN = 12.0, 0.27, 0.75, 0.9
_DOTS_PER_INCH = 130
_ROOM_FOR_LABELS = 1.5


class _Bar(NamedTuple):
    """Two lengths on end and the words behind them; `first` is the one in full colour."""

    first: float
    second: float
    label: str


class _Panel(NamedTuple):
    title: str
    bar: Callable[[Row], _Bar | None]
    common_first: bool = False
    otherwise: str = "not known"


def _packages(row: Row) -> _Bar | None:
    common, own = row.packages_mb(WEB, PICTURES), row.packages_mb(OWN)
    return None if common is None or own is None else _Bar(common, own, f"{common + own:.0f}")


def _model(row: Row) -> _Bar | None:
    if row.model_mb is None:
        return None
    count = "" if row.parameters is None else f" ({_counted(row.parameters)})"
    return _Bar(row.model_mb, 0.0, f"{row.model_mb:.1f}{count}")


def _counted(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 10_000 else str(number)


def _load(row: Row) -> _Bar | None:
    return None if row.figures is None else _Bar(row.figures.load_s, 0.0, f"{row.figures.load_s:.2f}")


def _first(row: Row) -> _Bar | None:
    return None if row.figures is None else _times(row.figures.first_infer_ms, row.figures.first_whole_ms)


def _warm(row: Row) -> _Bar | None:
    return None if row.figures is None else _times(row.figures.infer_ms, row.figures.whole_ms)


def _times(infer_ms: float, whole_ms: float) -> _Bar:
    return _Bar(infer_ms, max(0.0, whole_ms - infer_ms), f"{_short(infer_ms)} / {_short(whole_ms)}")


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}"


def _peak(row: Row) -> _Bar | None:
    return None if row.figures is None else _Bar(row.figures.peak_mb, 0.0, f"{row.figures.peak_mb:.0f}")


_PANELS = (
    _Panel("Installed packages, MB", _packages, common_first=True),
    _Panel("Model in the function, MB (parameters)", _model, otherwise="none"),
    _Panel("Process start to open model, s", _load),
    _Panel("First prediction, ms (network / whole)", _first),
    _Panel("Warm prediction, ms (network / whole)", _warm),
    _Panel("Peak memory of the function, MB", _peak),
)


def check_matplotlib() -> None:
    """Raises Stopped where there is nothing to draw with, which is better known before minutes of measuring."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise Stopped("--into draws with matplotlib, which is not installed: pip install matplotlib") from error


def draw(found: Comparison, path: Path) -> None:
    """Writes `found` as a PNG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    sections = [(section, [row for row in section.rows if row.figures]) for section in found.sections]
    shown = [(section, rows) for section, rows in sections if rows]
    if not shown:
        raise Stopped("no backend could be measured, so there is nothing to draw")
    heights = [_height_in(len(rows)) for _, rows in shown]
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=(_WIDTH_IN, sum(heights) + _HEAD_IN), dpi=_DOTS_PER_INCH, layout="constrained")
        ratios = [_HEAD_IN, *heights]
        head, *parts = figure.subfigures(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
        _draw_head(head, found)
        for part, (section, rows) in zip(parts, shown, strict=True):
            _draw_section(part, section, rows)
        figure.savefig(path, format="png", facecolor="white")


def _height_in(bars: int) -> float:
    return -(-len(_PANELS) // _COLUMNS) * (bars * _BAR_IN + _PANEL_IN) + 0.3


def _draw_head(figure: Any, found: Comparison) -> None:
    """The title, what it was measured on, and what the colours say."""
    figure.text(0.01, 0.82, "Backends compared", fontsize=14, fontweight="bold", color=_INK, va="center")
    conditions = f"{found.machine}; medians of {plural(found.rounds, 'process')} a backend"
    figure.text(0.01, 0.54, "; ".join([conditions, *found.notes]), color=_FAINT, va="center")
    kinds = {row.external for section in found.sections for row in section.rows if row.figures}
    words = {
        _INSIDE: "model in the function" if False in kinds else "",
        _OUTSIDE: "model on a server" if True in kinds else "",
        _COMMON: "packages that other backends need, too",
    }
    for at, (colour, word) in enumerate((colour, word) for colour, word in words.items() if word):
        figure.text(0.01 + 0.19 * at, 0.18, "\N{BLACK SQUARE}", color=colour, fontsize=13, va="center")
        figure.text(0.026 + 0.19 * at, 0.18, word, color=_INK, va="center")


def _draw_section(figure: Any, section: Section, rows: Sequence[Row]) -> None:
    figure.suptitle(section.bundle, x=0.01, ha="left", fontsize=11, fontweight="bold", color=_INK)
    axes = figure.subplots(-(-len(_PANELS) // _COLUMNS), _COLUMNS, sharey=True)
    for panel, axis in zip(_PANELS, axes.flat, strict=True):
        _draw_panel(axis, panel, rows)


def _draw_panel(axis: Any, panel: _Panel, rows: Sequence[Row]) -> None:
    bars = [panel.bar(row) for row in rows]
    longest = max((bar.first + bar.second for bar in bars if bar), default=1.0)
    for at, (row, bar) in enumerate(zip(rows, bars, strict=True)):
        own = _OUTSIDE if row.external else _INSIDE
        if bar is None:
            axis.text(0.01 * longest, at, panel.otherwise, va="center", color=_FAINT)
            continue
        axis.barh(at, bar.first, color=_COMMON if panel.common_first else own, height=0.68)
        axis.barh(at, bar.second, left=bar.first, color=own, height=0.68, alpha=None if panel.common_first else _PALE)
        label = axis.text(bar.first + bar.second + 0.015 * longest, at, bar.label, va="center", color=_INK)
        label.set_in_layout(False)  # all panels are of one width
    axis.set_title(panel.title, loc="left", fontsize=9.5, color=_INK)
    axis.set_xlim(0, longest * _ROOM_FOR_LABELS)
    axis.set_yticks(range(len(rows)), [row.backend for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.tick_params(left=False, bottom=False, labelbottom=False, labelcolor=_INK)
    axis.spines[:].set_visible(False)
