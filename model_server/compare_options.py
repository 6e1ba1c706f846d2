"""The options of `compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from model_server.options import Commands, add_backends

if TYPE_CHECKING:
    from model_server.compare import Plan


def add_compare(commands: Commands) -> argparse.ArgumentParser:
    """The command itself, for what it runs."""
    command = commands.add_parser("compare", help="size, load time, speed and memory of every backend, measured")
    add_backends(command)
    command.add_argument("--rounds", type=_count, default=5, metavar="N", help="fresh processes a backend; default: 5")
    command.add_argument("--into", type=Path, metavar="FOLDER", help="write compare.md and compare.png there, too")
    command.add_argument(
        "--server-pid",
        action="append",
        default=[],
        type=_pid,
        metavar="BACKEND=PID",
        help="a model server's process, for its memory; `triton` and `tfserving` are all of theirs",
    )
    command.add_argument("--note", action="append", default=[], metavar="TEXT", help="what a reader has to know, too")
    return command


def plan(options: argparse.Namespace) -> Plan:
    from model_server.compare import Plan
    from model_server.options import where
    from model_server.parity import chosen_backends
    from model_server.photos import pictures

    backends, named = chosen_backends(options.backends)
    pids = {backend: pid for name, pid in options.server_pid for backend in chosen_backends(name)[0]}
    return Plan(
        backends,
        named,
        tuple(pictures(options.pictures)),
        where(options),
        options.rounds,
        options.threads,
        pids,
        tuple(options.note),
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text!r}")
    return int(text)


def _pid(text: str) -> tuple[str, int]:
    backend, equals, pid = text.partition("=")
    if not equals or not pid.isascii() or not pid.isdigit():
        raise argparse.ArgumentTypeError(f"expected BACKEND=PID such as triton=4711, found {text!r}")
    return backend, int(pid)
