"""Sizes and cold starts as one picture: a row for each image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docker.matrix.cold_report import COLD
from docker.matrix.contents import APP, BUNDLE, PACKAGES
from docker.matrix.size_report import SIZES
from model_server.failures import Stopped

# Okabe and Ito's palette, which people who see colours differently can tell apart, too.
_BASE, _INK, _FAINT = "base", "#222222", "#777777"
_COLOURS = {_BASE: "#D9D9D9", PACKAGES: "#0072B2", APP: "#E69F00", BUNDLE: "#009E73"}
_WARM, _COLD = "#0072B2", "#56B4E9"
_WIDTH_IN, _ROW_IN, _HEAD_IN = 12.0, 0.42, 1.7
_DOTS_PER_INCH = 130
_ROOM_FOR_LABELS = 1.22


def draw(folder: Path, picture: Path) -> None:
    """Writes the figures of sizes.json and cold.json in `folder` as a PNG. Raises Stopped."""
    sizes = {one["name"]: one for one in _read(folder / f"{SIZES}.json")}
    cold = _read(folder / f"{COLD}.json")
    woken = {one["name"]: one for one in cold["images"]}
    names = [name for name in sizes if name in woken]
    if not names:
        raise Stopped(f"{folder}: no image was both weighed and started, so there is nothing to draw")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Stopped("matplotlib is not installed: pip install matplotlib") from error
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        height = len(names) * _ROW_IN + _HEAD_IN
        figure = Figure(figsize=(_WIDTH_IN, height), dpi=_DOTS_PER_INCH, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_sizes(left, [sizes[name] for name in names])
        _draw_starts(right, [woken[name] for name in names], cold["floors"])
        left.set_yticks(range(len(names)), names)
        left.set_ylim(len(names) - 0.5, -0.5)
        figure.suptitle("What an image holds and how fast it wakes", x=0.01, ha="left", fontsize=14, fontweight="bold")
        figure.supxlabel("\n".join([cold["conditions"], *cold["notes"]]), x=0.01, ha="left", fontsize=8, color=_FAINT)
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture, format="png", facecolor="white")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Stopped(f"{path}: {error}; `sizes` and `cold-start` write it with --into") from error


def _draw_sizes(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    parts = [{_BASE: row["base_mb"], **row["parts_mb"]} for row in rows]
    longest = max(sum(part.values()) for part in parts)
    for name, colour in _COLOURS.items():
        lengths = [part[name] for part in parts]
        before = [sum(part[one] for one in list(_COLOURS)[: list(_COLOURS).index(name)]) for part in parts]
        axis.barh(range(len(rows)), lengths, left=before, height=0.62, color=colour, label=name)
    for at, (row, part) in enumerate(zip(rows, parts, strict=True)):
        label = f"+{row['added_mb']:.0f} ({row['added_gzip_mb']:.0f} compressed)"
        _say(axis, sum(part.values()), longest, at, label)
    axis.set_xlim(0, longest * (_ROOM_FOR_LABELS + 0.14))
    _dress(axis, "On disk, MB; + is what we add, model apart", len(_COLOURS))


def _draw_starts(axis: Any, rows: Sequence[Mapping[str, Any]], floors: Sequence[Mapping[str, Any]]) -> None:
    warm = [row["warm"]["predict_s"] for row in rows]
    cold = [row["cold"]["predict_s"] if row["cold"] else None for row in rows]
    longest = max([*warm, *(value for value in cold if value is not None)])
    for values, shift, colour, said in ((warm, -0.18, _WARM, "files in memory"), (cold, 0.18, _COLD, "files on disk")):
        there = [(at, value) for at, value in enumerate(values) if value is not None]
        axis.barh([at + shift for at, _ in there], [value for _, value in there], height=0.34, color=colour, label=said)
        for at, value in there:
            _say(axis, value, longest, at + shift, f"{value:.2f}")
    floor_s = min(floor["warm_s"] for floor in floors)
    axis.axvline(floor_s, color=_INK, linewidth=0.8, linestyle=":", label="a container that does nothing")
    axis.set_xlim(0, longest * _ROOM_FOR_LABELS)
    _dress(axis, "Start of the container to the first answer, s", 3)


def _say(axis: Any, at_x: float, longest: float, at_y: float, words: str) -> None:
    axis.text(at_x + 0.012 * longest, at_y, words, va="center", fontsize=8, color=_INK)


def _dress(axis: Any, title: str, columns: int) -> None:
    axis.set_title(title, loc="left", fontsize=10, color=_INK, pad=24)
    axis.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.995), ncols=columns, frameon=False, fontsize=8.5)
    axis.tick_params(left=False, bottom=False, labelbottom=False, labelcolor=_INK)
    axis.spines[:].set_visible(False)
