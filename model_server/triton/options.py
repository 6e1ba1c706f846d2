"""What the commands `triton` and `serve` are told on their command lines."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_triton(command: argparse.ArgumentParser) -> None:
    _add_serving(command)
    command.add_argument("out", type=Path, metavar="OUT")
    command.add_argument("--replace", action="store_true", help="put the new one in the place of what is there")


def add_serve(command: argparse.ArgumentParser) -> None:
    _add_serving(command)
    command.add_argument("--with", dest="means", choices=("wheel", "container"), help="default: the wheel if installed")
    command.add_argument(
        "--python", type=Path, metavar="FILE", help="interpreter that has the wheel; default: this one"
    )
    command.add_argument("--image", metavar="IMAGE", help="of the container; default: NVIDIA's")
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        command.add_argument(f"--{name}-port", type=_port, default=port, metavar="PORT", help=f"default: {port}")


def _add_serving(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundles", nargs="+", metavar="BUNDLE", help="its folder, or its name in the models folder")
    command.add_argument(
        "--platform", choices=("onnx", "torchscript", "tensorflow", "python"), help="what runs the networks"
    )
    command.add_argument(
        "--forward", choices=("tensor", "encoded"), default="tensor", help="encoded: also take pictures as they came"
    )
    command.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    command.add_argument("--instances", type=_count, metavar="N", help="of each model")
    command.add_argument("--max-batch", type=_count, default=8, metavar="N", help="requests run as one; default: 8")
    command.add_argument("--accelerator", choices=("tensorrt", "openvino"))


def _count(text: str) -> int:
    return _number(text, 1024)


def _port(text: str) -> int:
    return _number(text, 65_535)


def _number(text: str, largest: int) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) <= largest:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number from 1 to {largest}, found {text!r}")
