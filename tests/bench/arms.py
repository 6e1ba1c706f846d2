"""Arms: things to measure, run in turn, round after round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from time import perf_counter, process_time
from typing import TypeAlias

CONTROL = " (again)"
"""Behind the name of an arm that repeats another: the A/A arm."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one go of an arm took: a subset of elapsed time, processor time and memory."""

    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    memory_mb: float = 0.0


Arm: TypeAlias = Callable[[], Sample]
Samples: TypeAlias = Mapping[str, list[Sample]]


def interleaved(arms: Mapping[str, Arm], rounds: int) -> Samples:
    """Every arm once a round, in an order that changes from round to round, after one round that is not counted."""
    samples: dict[str, list[Sample]] = {name: [] for name in arms}
    for number in range(-1, rounds):
        order = list(arms)
        Random(number).shuffle(order)
        for name in order:
            sample = arms[name]()
            if number >= 0:
                samples[name].append(sample)
    return samples


class Stopwatch:
    """Elapsed and processor time of this process, filled in when the block ends."""

    sample = Sample()


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    watch = Stopwatch()
    wall, cpu = perf_counter(), process_time()
    yield watch
    watch.sample = Sample((perf_counter() - wall) * 1e3, (process_time() - cpu) * 1e3)


def timed(work: Callable[[], object]) -> Arm:
    """An arm that does `work` in this process."""

    def arm() -> Sample:
        with stopwatch() as watch:
            work()
        return watch.sample

    return arm
