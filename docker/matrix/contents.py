"""What the files of an image are for, which packages they belong to, and which of them are there twice."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from docker.matrix.layers import File

PACKAGES, APP, BUNDLE = "packages", "app", "bundle"
PARTS = (PACKAGES, APP, BUNDLE)
_BUNDLE = re.compile(r"(app|home/site/wwwroot)/model_server/models/.")
_PACKAGES = re.compile(r"(opt/venv|home/site/wwwroot/\.python_packages)/")
_PACKAGE = re.compile(r".*?/site-packages/(?P<name>[^/]+)")
_METADATA = "*.dist-info"


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Files of the same bytes; `wasted_bytes` is what all but one of them take."""

    paths: tuple[str, ...]
    wasted_bytes: int


def is_of_bundle(path: str) -> bool:
    return _BUNDLE.match(path) is not None


def part(path: str) -> str:
    """Which of PARTS the file at `path` belongs to: what is neither package nor bundle is the application."""
    if is_of_bundle(path):
        return BUNDLE
    return PACKAGES if _PACKAGES.match(path) else APP


def bytes_of_parts(files: Iterable[File]) -> dict[str, int]:
    found = dict.fromkeys(PARTS, 0)
    for file in files:
        found[part(file.path)] += file.size
    return found


def packages(files: Iterable[File]) -> list[tuple[str, int]]:
    """What lies at the top of site-packages with its bytes, the largest first; all metadata counts as one."""
    found: Counter[str] = Counter()
    for file in files:
        if _PACKAGES.match(file.path):
            match = _PACKAGE.match(file.path)
            found[_top(match["name"]) if match else "the environment itself"] += file.size
    return found.most_common()


def _top(name: str) -> str:
    return _METADATA if name.endswith(".dist-info") else name


def duplicates(files: Iterable[File]) -> list[Duplicates]:
    """Every set of files that have the same bytes, the most wasteful first. Empty files waste nothing."""
    alike: dict[tuple[str, int], set[str]] = defaultdict(set)
    for file in files:
        if file.size:
            alike[file.sha256, file.size].add(file.path)
    sets = [Duplicates(tuple(sorted(p)), size * (len(p) - 1)) for (_, size), p in alike.items() if len(p) > 1]
    return sorted(sets, key=lambda one: (-one.wasted_bytes, one.paths))
