"""The program of every arm: for each number read, so many calls; their time, in ms, and what the last one gave are
written. `python -m tests.bench.backends.loop MODULE:WAY [ARGUMENT ...] [--after FILE | --clients N [--own]]`"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Barrier, local
from time import perf_counter, process_time
from typing import Any, NamedTuple, TypeAlias

from tests.bench.backends.inputs import decoded


class Way(NamedTuple):
    """Something to do over and over, and what its answer says, as JSON can."""

    work: Callable[[], Any]
    found: Callable[[Any], object]


class Clock:
    """Elapsed and processor time of this process, added up over what is timed."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        wall, cpu = perf_counter(), process_time()
        yield
        self.wall_s, self.cpu_s = self.wall_s + perf_counter() - wall, self.cpu_s + process_time() - cpu


Make: TypeAlias = Callable[[], Way]
Go: TypeAlias = Callable[[int, Clock], object]


def alone(make: Make) -> Go:
    """One call after the other."""
    way = make()

    def go(times: int, clock: Clock) -> object:
        with clock.timed():
            for _ in range(times):
                answer = way.work()
        return way.found(answer)

    return go


def rested(make: Make, picture: bytes) -> Go:
    """Each call after the decoding of `picture`, which is not timed: as in a request, what the call needs has left the
    caches, and the server has had nothing to do for a while."""
    way = make()

    def go(times: int, clock: Clock) -> object:
        for _ in range(times):
            decoded(picture)
            with clock.timed():
                answer = way.work()
        return way.found(answer)

    return go


def together(make: Make, clients: int, *, own: bool) -> Go:
    """So many threads that take one call after the other, each with a way of its `own` or all with the same."""
    shared = None if own else make()
    kept = local()

    def begin() -> None:
        kept.way = shared or make()

    threads, start = ThreadPoolExecutor(clients, initializer=begin), Barrier(clients)

    def client(left: deque[None]) -> object:
        start.wait()
        answer = kept.way.work()
        while left:
            try:
                left.pop()
            except IndexError:  # another one was quicker
                break
            answer = kept.way.work()
        return kept.way.found(answer)

    def go(times: int, clock: Clock) -> object:
        left: deque[None] = deque([None] * (times - clients))
        with clock.timed():
            running = [threads.submit(client, left) for _ in range(clients)]
            return [each.result() for each in running][-1]

    return go


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("way", metavar="MODULE:WAY")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT")
    parser.add_argument("--after", type=Path, metavar="FILE")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--own", action="store_true")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> Go:
    module, _, name = options.way.partition(":")
    factory = getattr(import_module(module), name)

    def make() -> Way:
        way: Way = factory(*options.arguments)
        return way

    if options.after is not None:
        return rested(make, options.after.read_bytes())
    return alone(make) if options.clients == 1 else together(make, options.clients, own=options.own)


def main() -> None:
    go = _chosen(_parsed())
    for line in sys.stdin:
        clock = Clock()
        found = go(int(line), clock)
        sys.stdout.write(json.dumps({"times_ms": [clock.wall_s * 1e3, clock.cpu_s * 1e3], "found": found}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
