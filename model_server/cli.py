"""The commands. Each says what it did on stdout; a failure is one line on stderr and exit status 1, or 2 for usage."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from model_server.failures import Stopped
from shared.errors import ConfigurationError
from shared.settings import Settings


def main(arguments: Sequence[str]) -> int:
    """Runs one command; gives its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except (Stopped, ConfigurationError) as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return status


def _failed(message: str) -> int:
    print(f"{_PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return 1


_PROGRAM = "model_server"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {_PROGRAM}", description="Gets, makes, checks and packs models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("fetch", help="get a known model, a bundle's folder by URL, or one file by URL")
    command.add_argument("what", nargs="?", metavar="NAME|URL", help="default: the folder that AIP_STORAGE_URI names")
    command.add_argument(
        "--into", type=Path, metavar="DIR", help="default: the models folder; for one file, this folder"
    )
    command.add_argument("--replace", action="store_true", help="put the new one in the place of what is there")
    command.set_defaults(run=_fetch, usage=command.error)

    command = commands.add_parser("list", help="the known models and those that are here")
    command.add_argument("--models", type=Path, metavar="DIR", help="default: the models folder")
    command.set_defaults(run=_list)

    command = commands.add_parser("check", help="what is wrong with a bundle, if anything")
    command.add_argument("folder", type=Path, metavar="FOLDER")
    command.set_defaults(run=_check)

    command = commands.add_parser("describe", help="a model.json for your own ONNX file, to be looked over")
    command.add_argument("file", type=Path, metavar="FILE.onnx")
    command.add_argument("--family", required=True, help="how the outputs are read: yolo, detr, …")
    command.add_argument("--labels", metavar="FILE|A,B,C", help="default: those in the file's own metadata")
    command.add_argument("--name", help="default: the file's name")
    command.add_argument("--licence", default="unknown", help="of the weights")
    command.set_defaults(run=_describe)

    command = commands.add_parser("export", help="make a known model anew from what it was published as")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--into", type=Path, metavar="DIR", help="default: the models folder")
    command.add_argument("--replace", action="store_true", help="put the new one in the place of what is there")
    command.set_defaults(run=_export)

    command = commands.add_parser("stage", help="lay out one folder that Azure and Google can deploy")
    command.add_argument("out", type=Path, metavar="OUT")
    command.add_argument("--bundle", required=True, action="append", metavar="NAME", help="may be given several times")
    command.add_argument("--models", type=Path, metavar="DIR", help="where the bundles are; default: the models folder")
    command.add_argument("--requirements", type=Path, metavar="FILE", help="default: requirements.txt")
    command.set_defaults(run=_stage)
    return parser


def _models(given: Path | None) -> Path:
    return given or Path(Settings.load().models)


def _fetch(options: argparse.Namespace) -> int:
    from model_server.catalog import read_catalog
    from model_server.fetch import fetch

    what = options.what or Settings.load().storage_uri
    if not what:
        options.usage(f"name a model ({', '.join(read_catalog())}) or a URL, or set AIP_STORAGE_URI")
        return 2
    print(fetch(what, _models(options.into), options.into or Path(), replace=options.replace))
    return 0


def _list(options: argparse.Namespace) -> int:
    from model_server.listing import table

    print(table(_models(options.models)))
    return 0


def _check(options: argparse.Namespace) -> int:
    from model_server.manifests import problems, serving_problem

    logging.getLogger("thinlens").disabled = True  # what it would say is said here
    found = problems(options.folder) or [problem for problem in [serving_problem(options.folder)] if problem]
    for problem in found:
        _failed(problem)
    if not found:
        print(f"{options.folder}: nothing wrong")
    return 1 if found else 0


def _describe(options: argparse.Namespace) -> int:
    from model_server.describe import describe
    from model_server.manifests import json_text

    draft, notes = describe(options.file, options.family, options.labels, options.name, options.licence)
    print(json_text(draft))
    for note in notes:
        print(f"look over: {note}", file=sys.stderr)
    return 0


def _export(options: argparse.Namespace) -> int:
    from model_server.export import export

    print(export(options.name, _models(options.into), replace=options.replace))
    return 0


def _stage(options: argparse.Namespace) -> int:
    from model_server.stage import stage

    print(stage(options.out, options.bundle, _models(options.models), options.requirements))
    return 0
