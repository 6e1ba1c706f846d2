"""The commands. Each says what it did on stdout; a failure is one line on stderr and exit status 1, or 2 for usage."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from model_server.compare_options import add_compare
from model_server.failures import Stopped
from model_server.options import add_convert, add_parity
from model_server.triton_options import add_serve, add_triton
from shared.backends import EMBEDDED
from shared.errors import ConfigurationError
from shared.manifest import MANIFEST
from shared.settings import SERVERS, Settings


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
    command.add_argument("--backend", metavar="BACKEND", help="only this one's file, from the bundle's other ones")
    command.add_argument("--into", type=Path, metavar="DIR", help="default: the models folder")
    command.add_argument("--replace", action="store_true", help="put the new one in the place of what is there")
    command.set_defaults(run=_export)

    add_convert(commands).set_defaults(run=_convert)
    add_parity(commands).set_defaults(run=_parity)
    add_compare(commands).set_defaults(run=_compare)

    command = commands.add_parser("stage", help="lay out one folder that Azure and Google can deploy")
    command.add_argument("out", type=Path, metavar="OUT")
    command.add_argument("--bundle", required=True, action="append", metavar="NAME", help="may be given several times")
    command.add_argument("--models", type=Path, metavar="DIR", help="where the bundles are; default: the models folder")
    command.add_argument("--requirements", type=Path, metavar="FILE", help="default: requirements.txt")
    command.add_argument("--backend", choices=[*EMBEDDED, *SERVERS], default="onnx", help="whose weights to take: onnx")
    command.set_defaults(run=_stage)

    command = commands.add_parser("tfserving", help="write a model repository for TensorFlow Serving")
    command.add_argument("bundle", metavar="BUNDLE", help="its folder, or its name in the models folder")
    command.add_argument("out", type=Path, metavar="OUT")
    command.add_argument("--replace", action="store_true", help="put the new one in the place of what is there")
    command.add_argument("--base-path", default="/models", metavar="PATH", help="where the server finds it: /models")
    command.add_argument("--version", metavar="N", help="default: the bundle's own")
    command.add_argument("--batching", action="store_true", help="write parameters for batching, too")
    command.set_defaults(run=_tfserving)

    command = commands.add_parser("triton", help="write a model repository for NVIDIA's Triton")
    add_triton(command)
    command.set_defaults(run=_triton)

    command = commands.add_parser("serve", help="start a model server on this machine, and stop it with Ctrl-C")
    add_serve(command)
    command.set_defaults(run=_serve)
    return parser


def _models(given: Path | None) -> Path:
    return given or Path(Settings.load().models)


def _bundle(given: str) -> Path:
    """The folder that `given` is, or the bundle of that name in the models folder."""
    return Path(given) if Path(given).is_dir() else _models(None) / given


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


@contextmanager
def _quiet() -> Iterator[None]:
    """What the service would log, the command says itself."""
    logger = logging.getLogger("thinlens")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _check(options: argparse.Namespace) -> int:
    from model_server.manifests import problems, serving_problem

    with _quiet():
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
    from model_server.export import add, export

    if options.backend:
        print(add(options.name, options.backend, _models(options.into)))
        return 0
    print(export(options.name, _models(options.into), replace=options.replace))
    return 0


def _convert(options: argparse.Namespace) -> int:
    from model_server.convert import convert
    from model_server.options import wishes

    report, good = convert(options.source, options.into, wishes(options))
    print(report)
    return 0 if good else 1


def _here() -> list[Path]:
    return sorted(path.parent for path in _models(None).glob(f"*/{MANIFEST}"))


def _parity(options: argparse.Namespace) -> int:
    from model_server.options import plan
    from model_server.parity import parity

    report, good = parity(options.bundles or _here(), plan(options))
    print(report)
    return 0 if good else 1


def _compare(options: argparse.Namespace) -> int:
    from model_server.compare import compare
    from model_server.compare_options import plan
    from model_server.compare_report import text, write
    from model_server.plots import check_matplotlib

    if options.into:
        check_matplotlib()
    found, good = compare(options.bundles or _here(), plan(options))
    print(text(found))
    if options.into:
        write(found, options.into)
    return 0 if good else 1


def _stage(options: argparse.Namespace) -> int:
    from model_server.stage import stage

    models = _models(options.models)
    print(stage(options.out, options.bundle, models, options.requirements, backend=options.backend))
    return 0


def _tfserving(options: argparse.Namespace) -> int:
    from model_server.tfserving import Options, write_repository

    chosen = Options(options.base_path, options.version, options.batching, options.replace)
    print(write_repository(_bundle(options.bundle), options.out, chosen))
    return 0


def _triton(options: argparse.Namespace) -> int:
    from model_server.serve import serving
    from model_server.triton import write_repository

    folders = [_bundle(name) for name in options.bundles]
    print(write_repository(folders, options.out, serving(options), replace=options.replace))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from model_server.serve import serve, serving
    from model_server.triton_means import means
    from model_server.triton_wheel import Ports

    ports = Ports(options.http_port, options.grpc_port, options.metrics_port)
    chosen = means(options.means, options.python, options.image, options.device)
    return serve([_bundle(name) for name in options.bundles], serving(options), chosen, ports)
