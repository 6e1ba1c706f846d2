"""The options of `convert`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from model_server.comparison.options import BUNDLE, Commands, add_tolerance
from model_server.conversion.targets import BACKENDS
from shared.manifest import Name

if TYPE_CHECKING:
    from model_server.conversion.steps import Wishes

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


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
    add_tolerance(command)
    command.add_argument("--keep-anyway", action="store_true", help="write OUT even where it is not good enough")
    command.add_argument("--replace", action="store_true", help="put the new one in the place of what is there")
    return command


def wishes(options: argparse.Namespace) -> Wishes:
    from model_server.conversion.steps import Wishes

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


def _precision(options: argparse.Namespace) -> Literal["half", "half-weights", "int8"] | None:
    if options.half:
        return "half"
    return "half-weights" if options.half_weights else "int8" if options.int8 else None


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
