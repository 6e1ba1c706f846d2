"""The container images of this project: python3 -m docker.images COMMAND [VARIANT …]

list        what there is; --json for the matrix of CI
build       builds them
sizes       what each adds to its base, against the ceilings of docker/budget.toml
cold-start  how long each takes from its start to its first answer
plot        the figures of the last two as a picture

Ends with 1 where something failed or a ceiling is exceeded, and with 2 where an image is not there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from docker.matrix import commands
from docker.matrix.building import PREFIX
from docker.matrix.failures import Missing
from docker.matrix.variants import VARIANTS, Variant, chosen
from model_server.failures import Stopped

_Run: TypeAlias = Callable[[argparse.Namespace, Sequence[Variant]], int]
_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(given: Sequence[str]) -> int:
    options = _parser().parse_args(given)
    try:
        status: int = options.run(options, chosen(options.variants))
    except Stopped as error:
        sys.stderr.write(f"images: {error}\n")
        return 2 if isinstance(error, Missing) else 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m docker.images", description="The container images.")
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = _command(added, "list", commands.listing, "say what there is")
    listing.add_argument("--json", action="store_true", help="for CI's matrix")
    made = _command(added, "build", commands.build, "build them")
    made.add_argument("--progress", default="auto", help="as of docker build (auto, plain, quiet)")
    weighed = _command(added, "sizes", commands.sizes, "say what each adds to its base, against docker/budget.toml")
    weighed.add_argument("--layers", action="store_true", help="a table of each image's layers, too")
    _add_into(weighed, "sizes")
    woken = _command(added, "cold-start", commands.cold_start, "say how long each takes to its first answer")
    woken.add_argument("--rounds", type=_count, default=5, help="starts of each, warm and cold (%(default)s)")
    woken.add_argument("--server-image", metavar="TAG", help="the Triton that tensors are forwarded to")
    woken.add_argument("--server-image-encoded", metavar="TAG", help="the Triton that pictures are forwarded to")
    _add_into(woken, "cold")
    _add_plot(added)
    return parser


def _command(added: _Commands, name: str, run: _Run, text: str) -> argparse.ArgumentParser:
    parser = added.add_parser(name, help=text, description=text)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(one.name for one in VARIANTS))
    parser.add_argument("--tag-prefix", default=PREFIX, help="the images are PREFIX:VARIANT (%(default)s)")
    parser.set_defaults(run=run)
    return parser


def _add_into(parser: argparse.ArgumentParser, stem: str) -> None:
    parser.add_argument("--into", type=Path, metavar="FOLDER", help=f"write {stem}.json and {stem}.md there")


def _add_plot(added: _Commands) -> None:
    text = "draw the figures that sizes and cold-start have written"
    parser = added.add_parser("plot", help=text, description=text)
    parser.add_argument("picture", type=Path, metavar="FILE", help="the PNG to write")
    parser.add_argument("--from", dest="folder", type=Path, required=True, metavar="FOLDER", help="what --into named")
    parser.set_defaults(run=commands.plot, variants=())


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
