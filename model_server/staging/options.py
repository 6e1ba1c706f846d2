"""What the commands `stage`, `optimise` and `profile` are told on their command lines."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from model_server.comparison.options import BUNDLE
from shared.backends import EMBEDDED
from shared.settings import SERVERS

_SHA = re.compile(r"[0-9a-fA-F]{7,40}")


def add_stage(command: argparse.ArgumentParser) -> None:
    command.add_argument("out", type=Path, metavar="OUT")
    command.add_argument(
        "--bundle", required=True, action="append", metavar="BUNDLE", help="may be given several times"
    )
    command.add_argument("--models", type=Path, metavar="DIR", help="where the bundles are; default: the models folder")
    command.add_argument("--requirements", type=Path, metavar="FILE", help="default: those of the backend")
    command.add_argument("--backend", choices=[*EMBEDDED, *SERVERS], default="onnx", help="whose weights to take: onnx")
    command.add_argument("--cloud", choices=("azure", "google", "vertex"), help="only its door; default: every one")
    command.add_argument(
        "--optimise", action="store_true", help="take ONNX graphs as this ONNX Runtime optimises them for any processor"
    )
    command.add_argument(
        "--profile", action="store_true", help="measure time and memory of each bundle here, and write them beside it"
    )
    command.add_argument("--git-sha", type=_git_sha, metavar="SHA", help="what /version says; empty: unknown")


def add_optimise(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", metavar="BUNDLE", help=BUNDLE)
    command.add_argument("--into", required=True, type=Path, metavar="OUT", help="the new bundle's folder")
    command.add_argument("--replace", action="store_true", help="put the new one in the place of what is there")


def add_profile(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", metavar="BUNDLE", help=BUNDLE)
    command.add_argument("--backend", choices=[*EMBEDDED], help="default: the first that it has weights for")


def _git_sha(text: str) -> str | None:
    if not text:
        return None
    if not _SHA.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected 7 to 40 hex digits, or nothing where unknown, found {text!r}")
    return text.lower()
