"""The processes that are compared: each does, for every number that it is told, so many calls."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from math import isclose
from pathlib import Path
from typing import Any, TypeAlias

from shared.host import LIBRARY_VARIABLES
from tests.bench.arms import CONTROL, Arm, Samples, interleaved
from tests.bench.processes import Child, child, environment, repeated
from tests.parity import PYTHONS

Side: TypeAlias = AbstractContextManager[Child]
Sides: TypeAlias = Mapping[str, Side]
_PACKAGE = __name__.rpartition(".")[0]
_CLOSE = 1e-3


def side(way: str, *arguments: str, python: str = sys.executable, **settings: str) -> Side:
    """The process of the `way` "module:function" of this package; `settings` are ours, without their prefix. What
    libraries read when they are loaded is the same for every side, as our launchers have it."""
    own = {f"THINLENS_{name.upper()}": value for name, value in settings.items()}
    environ = environment(**(LIBRARY_VARIABLES | own))
    return child([python, "-m", f"{_PACKAGE}.loop", f"{_PACKAGE}.{way}", *arguments], environ)


def interpreter(backend: str) -> str:
    """The interpreter that has the framework of an embedded backend. Raises FileNotFoundError."""
    named = os.environ.get(f"TEST_{backend.upper()}_PYTHON")
    python = Path(named) if named else PYTHONS[backend] / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"{python} is missing: run `make bench-backends`")
    return str(python)


def measured(groups: Sequence[Sides], again: Collection[str], rounds: int, times: int) -> Samples:
    """Samples of a call of each side, those of `again` twice a round. The sides of a group must find the same."""
    with ExitStack() as stack:
        children: dict[str, Child] = {}
        for group in groups:
            started = {name: stack.enter_context(one) for name, one in group.items()}
            check_alike(started, times)
            children |= started
        arms: dict[str, Arm] = {name: partial(repeated, process, times) for name, process in children.items()}
        return interleaved(arms | {name + CONTROL: arms[name] for name in again}, rounds)


def check_alike(children: Mapping[str, Child], times: int) -> None:
    """Raises AssertionError where two sides do not find the same."""
    found = {name: json.loads(process.ask(str(times)))["found"] for name, process in children.items()}
    first = next(iter(found.values()))
    assert all(same(first, other) for other in found.values()), found


def same(one: Any, other: Any) -> bool:
    """Whether two answers say the same, but for the last digits of their numbers."""
    if type(one) is not type(other):
        return False
    match one:
        case dict():
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        case list():
            return len(one) == len(other) and all(map(same, one, other))
        case float():
            return isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE)
    return bool(one == other)
