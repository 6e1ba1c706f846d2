"""What travels with every request: its id, its deadline and the time that each stage took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from shared.errors import DeadlineExceeded

if TYPE_CHECKING:
    from shared.memory import Share


class Call:
    """One request under way. `stages_ms` grows in the order that stages end; `share` is what the request holds of the
    process's memory, where somebody keeps account of it from its first byte to its last."""

    def __init__(self, request_id: str, timeout_s: float) -> None:
        self.request_id = request_id
        self.timeout_s = timeout_s
        self.stages_ms: dict[str, float] = {}
        self.share: Share | None = None
        self._begin = monotonic()
        self._ends_at = self._begin + timeout_s

    @property
    def remaining_s(self) -> float:
        return self._ends_at - monotonic()

    @property
    def elapsed_ms(self) -> float:
        return (monotonic() - self._begin) * 1e3

    def part(self) -> Call:
        """A call of its own stages inside this one's id and time."""
        part = Call(self.request_id, self.timeout_s)
        part._ends_at = self._ends_at
        part.share = self.share
        return part

    def check(self) -> None:
        """Raises DeadlineExceeded once the request's time is over."""
        if self.remaining_s <= 0:
            raise DeadlineExceeded(f"the request took longer than its {self.timeout_s:g} s", limit=self.timeout_s)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a part of the work under `name` (milliseconds, added up), and checks the deadline after it."""
        begin = perf_counter()
        try:
            yield
        finally:
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + (perf_counter() - begin) * 1e3
        self.check()
