"""The options of `describe`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from shared.tensors import TensorSpec
from shared.validation import Mismatch, convert

if TYPE_CHECKING:
    from model_server.describe.adding import Addition
    from model_server.describe.looked import Asked

_INPUT = re.compile(r"(?:(?P<name>[^=\[\]]+)=)?(?P<dtype>\w+)\[(?P<shape>[^\[\]]*)\]")
_NEW = ("family", "labels", "name", "licence", "input", "output", "role", "into")


def add_describe(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", help=".onnx, TorchScript, SavedModel, frozen .pb, .tflite")
    command.add_argument("--family", help="how the outputs are read: yolo, detr, …; default: as they look")
    command.add_argument("--labels", metavar="FILE|A,B,C", help="default: those in the file's own metadata")
    command.add_argument("--name", help="default: the file's name")
    command.add_argument("--licence", help="of the weights")
    command.add_argument(
        "--input",
        action="append",
        type=_input,
        metavar="[NAME=]DTYPE[SHAPE]",
        help="what a script takes, such as 'images=float32[1,3,640,640]', null for a free axis; once for each input",
    )
    command.add_argument("--output", action="append", metavar="NAME", help="the outputs to take, or a script's names")
    command.add_argument(
        "--role",
        action="append",
        type=_role,
        metavar="NAME=ROLE",
        help="what the family takes a tensor for, where its name does not say: boxes, scores, …, size, mask",
    )
    command.add_argument("--signature", metavar="NAME", help="of a SavedModel or .tflite; default: serving_default")
    command.add_argument("--into", type=Path, metavar="BUNDLE", help="write BUNDLE/model.json; default: print it")
    command.add_argument(
        "--add-to", type=Path, metavar="BUNDLE", help="add the file to this bundle, if its tensors are the same"
    )
    command.add_argument("--network", metavar="NAME", help="to add to, where the bundle has several")
    command.add_argument("--replace", action="store_true", help="of what the bundle has for this backend")


def asked(options: argparse.Namespace) -> Asked:
    """For a new model.json. Ends the program where an option is missing or for something else."""
    from model_server.describe.looked import Asked

    if options.network or options.replace:
        options.usage("--network and --replace go with --add-to")
    return Asked(
        family=options.family,
        labels=options.labels,
        name=options.name,
        licence=options.licence or "unknown",
        inputs=tuple(options.input or ()),
        outputs=tuple(options.output or ()),
        signature=options.signature,
        roles=dict(options.role or ()),
    )


def addition(options: argparse.Namespace) -> Addition:
    """For a bundle that is there. Ends the program where an option is for something else."""
    from model_server.describe.adding import Addition

    if foreign := [name for name in _NEW if getattr(options, name)]:
        options.usage(f"--{foreign[0]} does not go with --add-to: model.json says it already")
    return Addition(network=options.network, signature=options.signature, replace=options.replace)


def _input(text: str) -> TensorSpec:
    match = _INPUT.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected [NAME=]DTYPE[SHAPE], such as float32[1,3,640,640], found {text!r}")
    axes = [axis.strip() for axis in match["shape"].split(",") if axis.strip()]
    shape = [None if axis in ("null", "?", "-1") else int(axis) if axis.isdigit() else axis for axis in axes]
    try:
        return convert({"name": (match["name"] or "").strip(), "dtype": match["dtype"], "shape": shape}, TensorSpec)
    except Mismatch as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _role(text: str) -> tuple[str, str]:
    name, _, role = text.rpartition("=")
    if not name or not role:
        raise argparse.ArgumentTypeError(f"expected NAME=ROLE, such as out1=boxes, found {text!r}")
    return name, role
