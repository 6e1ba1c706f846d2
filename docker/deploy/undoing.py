"""What is put back where a deployment fails halfway."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from model_server.failures import Stopped


class Undo:
    """Steps back, taken latest first when the block ends by an exception, an interruption included; a second
    interruption ends them."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def step(self, what: str, back: Callable[[], object]) -> None:
        """Remembers how to take back what was just done, or is about to be."""
        self._steps.append((what, back))

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            return
        for what, back in reversed(self._steps):
            sys.stderr.write(f"rolling back: {what}\n")
            try:
                back()
            except Stopped as failure:
                sys.stderr.write(f"NOT rolled back: {what}: {failure}\n")
