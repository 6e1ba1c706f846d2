"""The options of `parity` and `compare`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from shared.server_place import Place

if TYPE_CHECKING:
    from model_server.comparison import compare, parity
    from model_server.comparison.arms import Where

BUNDLE = "its folder, or its name in the models folder"
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_MOST_THREADS = 1024
_SERVERS = ("triton-http", "triton-grpc", "triton-encoded", "tfserving-http", "tfserving-grpc")


def add_parity(commands: Commands) -> argparse.ArgumentParser:
    """The command itself, for what it runs."""
    command = commands.add_parser("parity", help="whether every backend gives the same answers on real pictures")
    add_backends(command)
    command.add_argument("--score-threshold", type=_positive, metavar="S", help="default: each model's own")
    add_tolerance(command)
    return command


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


def add_backends(command: argparse.ArgumentParser) -> None:
    """Which bundles are run by which backends, on which pictures, and where these are."""
    command.add_argument("bundles", nargs="*", metavar="BUNDLE", help=f"{BUNDLE}; default: all that are there")
    command.add_argument("--backends", default="all", metavar="all|A,B,…", help="onnx, torchscript, triton-http, …")
    command.add_argument("--pictures", type=Path, metavar="FOLDER", help="default: the sample photographs")
    command.add_argument(
        "--threads", type=_threads, default=0, metavar="N", help="of one inference; default: every core"
    )
    for server in _SERVERS:
        command.add_argument(f"--{server}", type=_url(server), metavar="URL", help="its model server")
    command.add_argument(
        "--python",
        action="append",
        default=[],
        type=_python,
        metavar="BACKEND=PATH",
        help="the interpreter that has a backend's framework; may be given several times",
    )


def add_tolerance(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tolerance-score", type=_positive, metavar="S", help="largest difference of a score")
    command.add_argument("--tolerance-px", type=_positive, metavar="PX", help="of a box's side, in source pixels")


def where(options: argparse.Namespace) -> Where:
    """The interpreters and model servers that were named."""
    from model_server.comparison.arms import Where

    urls = {server: url for server in _SERVERS if (url := getattr(options, server.replace("-", "_")))}
    return Where(dict(options.python), urls)


def parity_plan(options: argparse.Namespace) -> parity.Plan:
    from model_server.comparison.agreement import EXACT, Tolerance
    from model_server.comparison.parity import Plan, chosen_backends
    from model_server.comparison.photos import pictures

    backends, named = chosen_backends(options.backends)
    score = EXACT.score if options.tolerance_score is None else options.tolerance_score
    px = EXACT.px if options.tolerance_px is None else options.tolerance_px
    return Plan(
        backends,
        named,
        tuple(pictures(options.pictures)),
        where(options),
        Tolerance(score, px),
        options.threads,
        options.score_threshold,
    )


def compare_plan(options: argparse.Namespace) -> compare.Plan:
    from model_server.comparison.compare import Plan
    from model_server.comparison.parity import chosen_backends
    from model_server.comparison.photos import pictures

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


def _positive(text: str) -> float:
    """0, too."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"expected a number from 0, found {text!r}")
    return value


def _threads(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected 0 to {_MOST_THREADS}, 0 being every core, found {text!r}")
    return int(text)


def _url(server: str) -> Callable[[str], str]:
    """What reads the URL of this model server."""
    protocol = "grpc" if server.endswith("grpc") else "http"

    def read(text: str) -> str:
        try:
            found = Place.of(text).protocol
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        if found != protocol:
            raise argparse.ArgumentTypeError(f"expected {protocol}://HOST:PORT, found {found}://")
        return text

    return read


def _python(text: str) -> tuple[str, str]:
    backend, equals, path = text.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"expected BACKEND=PATH such as torchscript=/usr/bin/python3, found {text!r}")
    return backend, path


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text!r}")
    return int(text)


def _pid(text: str) -> tuple[str, int]:
    backend, equals, pid = text.partition("=")
    if not equals or not pid.isascii() or not pid.isdigit():
        raise argparse.ArgumentTypeError(f"expected BACKEND=PID such as triton=4711, found {text!r}")
    return backend, int(pid)
