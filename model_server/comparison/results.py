"""What `compare` finds: for every bundle a row for each backend."""

from __future__ import annotations

from typing import Literal

import msgspec

from model_server.comparison.machine import Machine
from model_server.comparison.weighing import Package, Weighed

WEB, PICTURES, OWN = "web", "pictures", "own"
"""The groups of packages: the door and the web layer; numpy and Pillow; what one backend alone needs."""


def plural(count: int, word: str) -> str:
    """The count and the word, one that ends in s."""
    return f"{count} {word}" if count == 1 else f"{count} {word}es"


class Figures(msgspec.Struct, frozen=True):
    """Medians. `infer` is the network's own stage, `whole` the prediction from encoded picture to answer; `first` is
    the first one of a process. Memory is at its highest in the function's process, of a model server what it holds."""

    load_s: float
    first_infer_ms: float
    first_whole_ms: float
    infer_ms: float
    whole_ms: float
    cpu_ms: float
    peak_mb: float
    server_mb: float | None = None


class Row(msgspec.Struct, frozen=True):
    """One backend: what it costs before it runs, and its figures where it was run."""

    backend: str
    external: bool
    result: Literal["measured", "failed", "not run"]
    why: str = ""
    model_mb: float | None = None
    weighed: Weighed | None = None
    unweighed: str = ""
    figures: Figures | None = None

    @property
    def parameters(self) -> int | None:
        return self.weighed.parameters if self.weighed else None

    @property
    def packages(self) -> tuple[Package, ...]:
        """What it alone needs, the largest first."""
        own = self.weighed.packages[OWN] if self.weighed else ()
        return tuple(sorted(own, key=lambda package: (-package.size_bytes, package.name)))

    def packages_mb(self, *groups: str) -> float | None:
        """The size of those groups of packages, or of all; None where they are not all installed."""
        if self.weighed is None or self.weighed.missing:
            return None
        chosen = groups or tuple(self.weighed.packages)
        return sum(package.size_bytes for group in chosen for package in self.weighed.packages[group]) / 1e6

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know beside the figures."""
        if self.why:
            return (f"{self.result}: {self.why}",)
        if self.weighed is None:
            return (f"not weighed: {self.unweighed}",)
        missing = ", ".join(self.weighed.missing)
        return tuple(filter(None, (self.weighed.uncounted, missing and f"not installed, so not weighed: {missing}")))


class Section(msgspec.Struct, frozen=True):
    """The rows of one bundle."""

    bundle: str
    rows: tuple[Row, ...]


class Comparison(msgspec.Struct, frozen=True):
    """Everything that was found, and how: `rounds` fresh processes for each backend, each with `passes` over the
    pictures after the first; `threads` of one inference, 0 for every core. `notes` are what the caller has to say."""

    machine: Machine
    rounds: int
    passes: int
    pictures: tuple[str, ...]
    threads: int
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
