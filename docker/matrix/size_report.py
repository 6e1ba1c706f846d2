"""What images add to their bases, as tables for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docker.matrix.budget import Ceiling
from docker.matrix.contents import APP, BUNDLE, PACKAGES
from docker.matrix.layers import GZIP_LEVEL
from docker.matrix.markdown import markdown_table
from docker.matrix.weighing import MB, Weighed
from model_server.tables import table

SIZES = "sizes"
_HEAD = (
    "image",
    "added MB",
    "ceiling",
    "compressed MB",
    "ceiling",
    "packages",
    "app",
    "bundle",
    "base",
    "what is left",
)
_LAYERS_HEAD = ("layer", "on disk MB", "compressed MB", "files", "made by")
_MEANING = (
    "MB are 1e6 bytes. Added: the files of every layer above the base, bundle apart; compressed: the same layers by "
    f"gzip at level {GZIP_LEVEL}, as they are pushed and pulled. Packages, app, bundle and base are on disk."
)
_NAMED = 6
_NAMED_DUPLICATES = 5
_SAID_BY_BUILDKIT = " # buildkit"
_MADE_BY_LENGTH = 90


def text(found: Sequence[Weighed], ceilings: Mapping[str, Ceiling], *, layers: bool) -> str:
    parts = [table(_HEAD, _rows(found, ceilings)), _MEANING]
    if layers:
        parts += [f"{one.tag}\n{table(_LAYERS_HEAD, _layers(one))}" for one in found]
    return "\n\n".join([*parts, _duplicates(found), *_stand_ins(found)])


def markdown(found: Sequence[Weighed], ceilings: Mapping[str, Ceiling]) -> str:
    return "\n\n".join([markdown_table(_HEAD, _rows(found, ceilings)), _MEANING, *_stand_ins(found)]) + "\n"


def write(found: Sequence[Weighed], ceilings: Mapping[str, Ceiling], folder: Path) -> None:
    """Writes sizes.json and sizes.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_plain(one, ceilings[one.name]) for one in found]
    (folder / f"{SIZES}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (folder / f"{SIZES}.md").write_text(markdown(found, ceilings), encoding="utf-8")


def _rows(found: Sequence[Weighed], ceilings: Mapping[str, Ceiling]) -> list[list[str]]:
    return [_row(one, ceilings[one.name]) for one in found]


def _row(one: Weighed, ceiling: Ceiling) -> list[str]:
    parts = one.parts_mb
    return [
        one.name,
        _mb(one.added_mb),
        f"{ceiling.disk_mb:g}",
        _mb(one.added_gzip_mb),
        f"{ceiling.gzip_mb:g}",
        *(_mb(parts[part]) for part in (PACKAGES, APP, BUNDLE)),
        _mb(one.base_mb),
        ", ".join(f"{name} {_mb(size / MB)}" for name, size in one.packages[:_NAMED]),
    ]


def _layers(one: Weighed) -> list[list[str]]:
    """Those above the base that hold files."""
    return [
        [
            layer.diff_id.removeprefix("sha256:")[:12],
            _mb(layer.disk_bytes / MB),
            _mb((layer.gzip_bytes + layer.apart_gzip_bytes) / MB),
            str(len(layer.files)),
            layer.made_by.removesuffix(_SAID_BY_BUILDKIT)[:_MADE_BY_LENGTH],
        ]
        for layer in one.above
        if layer.files
    ]


def _duplicates(found: Sequence[Weighed]) -> str:
    lines = []
    for one in found:
        twice = one.duplicates
        wasted = sum(each.wasted_bytes for each in twice)
        lines.append(f"{one.name}: {len(twice)} sets of equal files, {wasted / 1e3:.0f} kB for nothing")
        lines += [
            f"    {each.wasted_bytes / 1e3:.0f} kB: {' = '.join(each.paths)}" for each in twice[:_NAMED_DUPLICATES]
        ]
    return "\n".join(lines)


def _stand_ins(found: Sequence[Weighed]) -> list[str]:
    """A sentence where an image is built on something else than what its base is called."""
    names = sorted({one.stand_in for one in found if one.stand_in})
    return [f"Built on STAND-INS of {', '.join(names)}, not on the official images."] if names else []


def _plain(one: Weighed, ceiling: Ceiling) -> dict[str, Any]:
    return {
        "name": one.name,
        "stand_in": one.stand_in,
        "added_mb": one.added_mb,
        "added_gzip_mb": one.added_gzip_mb,
        "ceiling_mb": ceiling.disk_mb,
        "ceiling_gzip_mb": ceiling.gzip_mb,
        "base_mb": one.base_mb,
        "base_gzip_mb": one.base_gzip_mb,
        "parts_mb": one.parts_mb,
        "packages_mb": {name: size / MB for name, size in one.packages},
        "layers": [dict(zip(_LAYERS_HEAD, row, strict=True)) for row in _layers(one)],
        "duplicates": [{"paths": each.paths, "wasted_bytes": each.wasted_bytes} for each in one.duplicates],
    }


def _mb(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
