"""How a deployment ends: an exit status, and one line that says why it failed."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from model_server.failures import Stopped


def ended(cloud: str, chosen: argparse.Namespace, deploy: Callable[[], str]) -> int:
    """Prints the place that `deploy` answers with. 0; 1 where it failed; 130 where Ctrl-C or a SIGTERM ended it. The
    steps that can be taken back have been by then."""
    try:
        with _terminated_as_interrupted():
            place = deploy()
    except Stopped as error:
        sys.stderr.write(f"{cloud}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{cloud}: interrupted\n")
        return 130
    if not chosen.dry_run:
        sys.stdout.write(f"{place}\n")
    return 0


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """In the block a SIGTERM to this process raises KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
