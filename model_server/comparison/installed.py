"""The size of installed packages, with all that they need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model_server.comparison.weighing import Package

_EITHER = "|"
_BYTECODE = ".pyc"


def packages(groups: Mapping[str, Sequence[str]]) -> tuple[dict[str, tuple[Package, ...]], tuple[str, ...]]:
    """The distributions that each group of requirements needs, by name, and the names of those that are not installed.

    A distribution is in the first group that needs it. `a|b` is whichever of the two is installed.
    """
    seen: set[str] = set()
    missing: dict[str, None] = {}
    found: dict[str, tuple[Package, ...]] = {}
    for group, requirements in groups.items():
        new: dict[str, Distribution] = {}
        for requirement in requirements:
            _gather(Requirement(_installed_one(requirement)), new, missing)
        found[group] = tuple(_package(name, one) for name, one in sorted(new.items()) if name not in seen)
        seen |= set(new)
    return found, tuple(missing)


def _installed_one(requirement: str) -> str:
    """Of `a|b` the first that is installed, else the first."""
    choices = requirement.split(_EITHER)
    return next((one for one in choices if _find(Requirement(one).name)), choices[0])


def _find(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _gather(first: Requirement, found: dict[str, Distribution], missing: dict[str, None]) -> None:
    """Adds what `first` needs, its own distribution included."""
    asked: set[tuple[str, str]] = set()
    waiting = [first]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        here = _find(name)
        if here is None:
            missing[name] = None
            continue
        found[name] = here
        for extra in sorted({"", *wanted.extras}):
            if (name, extra) not in asked:
                asked.add((name, extra))
                waiting += _needs(here, extra)


def _needs(distribution: Distribution, extra: str) -> Iterator[Requirement]:
    """What it needs on this machine with that extra; with none, what it always needs."""
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _package(name: str, distribution: Distribution) -> Package:
    return Package(name, distribution.version, sum(_sizes(distribution)))


def _sizes(distribution: Distribution) -> Iterator[int]:
    for file in distribution.files or ():
        if file.suffix != _BYTECODE:
            try:
                yield distribution.locate_file(file).lstat().st_size  # type: ignore[attr-defined]
            except FileNotFoundError:  # an image may have been pruned
                continue
