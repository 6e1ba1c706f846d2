"""How fast images wake, as a table for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from docker.matrix.cold_start import Floor, Woken
from docker.matrix.markdown import markdown_table
from model_server.tables import table

COLD = "cold"
_HEAD = ("image", "first answer s", "to /health s", "cold disk s", "to /health s", "memory MB")
_NONE = "-"
_MEANING = (
    "From the start of a container to the first answer of POST /predict, its model loaded, and to that of GET /health. "
    "Cold disk: the page cache was emptied before. Memory: the container's working set after that answer."
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found and under which conditions; `notes` is whatever else has to be said of it."""

    woken: Sequence[Woken]
    floors: Sequence[Floor]
    rounds: int
    notes: Sequence[str]

    @property
    def conditions(self) -> str:
        return f"{machine()}; medians of {self.rounds} starts of each image in turn"


def text(found: Measured) -> str:
    said = [_MEANING, f"{found.conditions}.", *(f"{note}." for note in found.notes)]
    return "\n\n".join([table(_HEAD, _rows(found)), "\n".join(said)])


def markdown(found: Measured) -> str:
    said = [_MEANING, f"{found.conditions}.", *(f"{note}." for note in found.notes)]
    return "\n\n".join([markdown_table(_HEAD, _rows(found)), " ".join(said)]) + "\n"


def write(found: Measured, folder: Path) -> None:
    """Writes cold.json and cold.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{COLD}.json").write_text(json.dumps(_plain(found), indent=1) + "\n", encoding="utf-8")
    (folder / f"{COLD}.md").write_text(markdown(found), encoding="utf-8")


def machine() -> str:
    """What it was measured on."""
    cores = os.cpu_count() or 1
    return f"{_processor()}, {cores} cores, {platform.system()} {platform.machine()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def _rows(found: Measured) -> list[list[str]]:
    rows = [
        [
            one.name,
            _seconds(one.warm.predict_s),
            _seconds(one.warm.health_s),
            _seconds(one.cold.predict_s if one.cold else None),
            _seconds(one.cold.health_s if one.cold else None),
            _NONE if one.warm.memory_mb is None else f"{one.warm.memory_mb:.0f}",
        ]
        for one in found.woken
    ]
    floors = [
        [f"python -c pass in {floor.base}", _seconds(floor.warm_s), _NONE, _seconds(floor.cold_s), _NONE, _NONE]
        for floor in found.floors
    ]
    return rows + floors


def _seconds(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _plain(found: Measured) -> dict[str, Any]:
    return {
        "conditions": found.conditions,
        "notes": list(found.notes),
        "images": [asdict(one) for one in found.woken],
        "floors": [asdict(floor) for floor in found.floors],
    }
