"""The ceilings of docker/budget.toml, and which of them an image exceeds."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from docker.matrix.engine import ROOT
from docker.matrix.variants import VARIANTS
from docker.matrix.weighing import Weighed
from model_server.failures import Stopped

BUDGET = ROOT / "docker" / "budget.toml"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What an image may add to its base, bundle apart, in MB of 1e6 bytes."""

    disk_mb: float
    gzip_mb: float


def read_budget(path: Path = BUDGET) -> dict[str, Ceiling]:
    """The ceiling of every variant. Raises Stopped where one is missing or wrong."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Stopped(f"{path}: {error}") from error
    known = [variant.name for variant in VARIANTS]
    if wrong := sorted(set(found) ^ set(known)):
        raise Stopped(f"{path}: expected a ceiling for each of the variants; wrong or missing: {', '.join(wrong)}")
    return {name: _ceiling(path, name, found[name]) for name in known}


def _ceiling(path: Path, name: str, found: object) -> Ceiling:
    wanted = [field.name for field in fields(Ceiling)]
    if not isinstance(found, dict) or sorted(found) != sorted(wanted):
        raise Stopped(f"{path}: [{name}]: expected {' and '.join(wanted)}, found {found!r}")
    for key, value in found.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise Stopped(f"{path}: [{name}] {key}: expected a number above 0, found {value!r}")
    return Ceiling(**found)


def exceeded(found: Iterable[Weighed], ceilings: Mapping[str, Ceiling]) -> list[str]:
    """A sentence for each ceiling that is exceeded."""
    said = []
    for one in found:
        ceiling = ceilings[one.name]
        for what, mb, limit in (
            ("on disk", one.added_mb, ceiling.disk_mb),
            ("compressed", one.added_gzip_mb, ceiling.gzip_mb),
        ):
            if mb > limit:
                said.append(f"{one.name} adds {mb:.2f} MB {what}, above its ceiling of {limit:g} MB")
    return said
