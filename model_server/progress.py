"""What a person sees while a command works: on stderr, and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    def update(self, n: int) -> object: ...


class _Unseen:
    def update(self, n: int) -> object: ...


@contextmanager
def progress_bar(what: str, total: int | None, done: int = 0, unit: str = "B") -> Iterator[Progress]:
    """A bar in bytes, or in other units; `done` of them were there before."""
    if not sys.stderr.isatty():
        yield _Unseen()
        return
    from tqdm import tqdm

    with tqdm(desc=what, total=total, initial=done, unit=unit, unit_scale=unit == "B", leave=False) as bar:
        yield bar


def say_on_terminal(what: str) -> None:
    if sys.stderr.isatty():
        print(what, file=sys.stderr)
