"""The options of `convert` and `parity`."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from model_server.targets import BACKENDS
from shared.manifest import Name
from shared.server_place import Place

if TYPE_CHECKING:
    from model_server.arms import Where
    from model_server.conversion import Wishes
    from model_server.parity import Plan

BUNDLE = "its folder, or its name in the models folder"
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_MOST_THREADS = 1024
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_SERVERS = ("triton-http", "triton-grpc", "triton-encoded", "tfserving-http", "tfserving-grpc")


def add_convert(commands: Commands) -> argparse.ArgumentParser:
    """The command itself, for what it runs."""
    command = commands.add_parser("convert", help="a bundle for another backend, smaller, or taking raw pixels")
    command.add_argument("source", metavar="BUNDLE", help=BUNDLE)
    command.add_argument("--to", required=True, choices=list(BACKENDS))
    command.add_argument("--into", required=True, type=Path, metavar="OUT", help="the new bundle's folder")
    command.add_argument("--name", type=_name, metavar="NAME", help="the new bundle's; default: that of the source")
    command.add_argument(
        "--module",
        metavar="PACKAGE.MODULE:FUNCTION",
        help="start from the torch.nn.Module that this gives; it takes the declared inputs in their order",
    )
    command.add_argument(
        "--from", dest="origin", choices=["onnx", "torchscript", "saved-model", "frozen"], help="which of its artifacts"
    )
    command.add_argument("--network", metavar="NAME", help="which network, where the bundle has several")
    command.add_argument(
        "--fold-normalisation", action="store_true", help="scale, mean and std into the graph, which takes raw uint8"
    )
    command.add_argument("--layout", choices=["NCHW", "NHWC", "CHW", "HWC"], help="of the raw pixels")
    command.add_argument("--colour", choices=["RGB", "BGR"], help="of the raw pixels")
    command.add_argument("--size", type=_size, metavar="HxW", help="fix the picture's height and width")
    command.add_argument("--free-size", action="store_true", help="leave them free")
    precision = command.add_mutually_exclusive_group()
    precision.add_argument(
        "--half", action="store_true", help="compute in float16: for GPUs; slower on most processors"
    )
    precision.add_argument("--half-weights", action="store_true", help="store float16, compute float32: half the file")
    precision.add_argument("--int8", action="store_true", help="static INT8: for processors; needs --calibration")
    command.add_argument("--calibration", type=Path, metavar="FOLDER", help="pictures like those the model will see")
    command.add_argument("--pictures", type=Path, metavar="FOLDER", help="to judge by; default: the sample photographs")
    _add_tolerance(command)
    command.add_argument("--keep-anyway", action="store_true", help="write OUT even where it is not good enough")
    command.add_argument("--replace", action="store_true", help="put the new one in the place of what is there")
    return command


def add_parity(commands: Commands) -> argparse.ArgumentParser:
    """The command itself, for what it runs."""
    command = commands.add_parser("parity", help="whether every backend gives the same answers on real pictures")
    add_backends(command)
    command.add_argument("--score-threshold", type=_positive, metavar="S", help="default: each model's own")
    _add_tolerance(command)
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


def where(options: argparse.Namespace) -> Where:
    """The interpreters and model servers that were named."""
    from model_server.arms import Where

    urls = {server: url for server in _SERVERS if (url := getattr(options, server.replace("-", "_")))}
    return Where(dict(options.python), urls)


def wishes(options: argparse.Namespace) -> Wishes:
    from model_server.conversion import Wishes

    return Wishes(
        to=options.to,
        name=options.name,
        module=options.module,
        origin=options.origin,
        network=options.network,
        fold=options.fold_normalisation,
        layout=options.layout,
        colour=options.colour,
        free_size=options.free_size,
        size=options.size,
        precision=_precision(options),
        calibration=options.calibration,
        pictures=options.pictures,
        tolerance_score=options.tolerance_score,
        tolerance_px=options.tolerance_px,
        keep_anyway=options.keep_anyway,
        replace=options.replace,
    )


def plan(options: argparse.Namespace) -> Plan:
    from model_server.agreement import EXACT, Tolerance
    from model_server.parity import Plan, chosen_backends
    from model_server.photos import pictures

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


def _precision(options: argparse.Namespace) -> Literal["half", "half-weights", "int8"] | None:
    if options.half:
        return "half"
    return "half-weights" if options.half_weights else "int8" if options.int8 else None


def _add_tolerance(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tolerance-score", type=_positive, metavar="S", help="largest difference of a score")
    command.add_argument("--tolerance-px", type=_positive, metavar="PX", help="of a box's side, in source pixels")


def _size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    if found is None or 0 in map(int, found.groups()):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 640x640, found {text!r}")
    return int(found[1]), int(found[2])


def _name(text: str) -> str:
    try:
        return msgspec.convert(text, Name)
    except msgspec.ValidationError as error:
        raise argparse.ArgumentTypeError(f"expected small letters, digits, '.', '_' and '-', found {text!r}") from error


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
