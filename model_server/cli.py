"""The commands. Each says what it did on stdout; a failure is one line on stderr and exit status 1, or 2 for usage."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from model_server.comparison.options import BUNDLE, add_compare, add_parity
from model_server.conversion.options import add_convert
from model_server.describe.options import add_describe
from model_server.failures import Stopped
from model_server.staging.options import add_optimise, add_profile, add_stage
from model_server.triton.options import add_serve, add_triton
from shared.backends import EMBEDDED
from shared.errors import ConfigurationError
from shared.manifest import MANIFEST, read_bundle
from shared.settings import Settings


def main(arguments: Sequence[str]) -> int:
    """Runs one command; gives its exit status."""
    parser = _parser()
    try:
        for argument in arguments:
            argument.encode()
        options = parser.parse_args(arguments)
        status: int = options.run(options)
    except (Stopped, ConfigurationError) as error:
        return _failed(str(error))
    except UnicodeEncodeError as error:
        return _failed(f"{error.object!r}: expected names in UTF-8")
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
    command.add_argument("bundle", metavar="BUNDLE", help=BUNDLE)
    command.set_defaults(run=_check)

    command = commands.add_parser("describe", help="a model.json for your own exported model, to be looked over")
    add_describe(command)
    command.set_defaults(run=_describe, usage=command.error)

    command = commands.add_parser("export", help="make a known model anew from what it was published as")
    _add_export(command)
    command.set_defaults(run=_export, usage=command.error)

    add_convert(commands).set_defaults(run=_convert)
    add_parity(commands).set_defaults(run=_parity)
    add_compare(commands).set_defaults(run=_compare)

    command = commands.add_parser("stage", help="lay out one folder that Azure and Google can deploy")
    add_stage(command)
    command.set_defaults(run=_stage)

    command = commands.add_parser("optimise", help="a bundle whose ONNX graphs are optimised, for any processor")
    add_optimise(command)
    command.set_defaults(run=_optimise)

    command = commands.add_parser("profile", help="measure a bundle's time and memory into its model.json")
    add_profile(command)
    command.set_defaults(run=_profile)

    command = commands.add_parser("embed", help="prepare a folder's pictures for a SAM model, so that no click waits")
    _add_embed(command)
    command.set_defaults(run=_embed, usage=command.error)

    command = commands.add_parser("tfserving", help="write a model repository for TensorFlow Serving")
    command.add_argument("bundle", metavar="BUNDLE", help=BUNDLE)
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


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="a known model, or `sam` for one of a checkpoint of yours")
    command.add_argument("--backend", metavar="BACKEND", help="only this one's file, from the bundle's other ones")
    command.add_argument("--checkpoint", type=Path, metavar="FILE", help="sam: the file of the weights, .pth or .pt")
    command.add_argument("--type", metavar="TYPE", help="sam: vit_b, vit_l, vit_h, or vit_t, which is MobileSAM's")
    command.add_argument("--bundle", metavar="NAME", help="sam: default: sam-vit-b and so on")
    command.add_argument("--into", type=Path, metavar="DIR", help="default: the models folder")
    command.add_argument("--replace", action="store_true", help="put the new one in the place of what is there")


def _add_embed(command: argparse.ArgumentParser) -> None:
    command.add_argument("pictures", type=Path, metavar="FOLDER")
    command.add_argument("--bundle", metavar="BUNDLE", help="default: the one for promptable segmentation that is here")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: what THINLENS_EMBEDDINGS names")
    command.add_argument("--backend", choices=EMBEDDED, help="default: what THINLENS_BACKEND says, else onnx")


def _models(given: Path | None) -> Path:
    return given or Path(Settings.load().models)


def _bundle(given: str) -> Path:
    """The folder that `given` is, or the bundle of that name in the models folder."""
    own, named = Path(given), _models(None) / given
    if not own.is_dir() and not named.is_dir():
        raise Stopped(f"{given}: there is no such folder, nor a bundle of that name in {_models(None)}")
    return own if own.is_dir() else named


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
    """What the service would log, the command says itself; what its frameworks say concerns nobody."""
    from model_server.silence import silence

    logger = logging.getLogger("thinlens")
    logger.disabled = True
    try:
        with silence():
            yield
    finally:
        logger.disabled = False


def _check(options: argparse.Namespace) -> int:
    from model_server.manifests import own_backend, problems, serving_problem
    from shared.manifest import read_bundle

    folder, settings = _bundle(options.bundle), Settings.load()
    with _quiet():
        found = problems(folder)
        if not found:
            if not os.environ.get("THINLENS_BACKEND"):
                backend = own_backend(read_bundle(folder)) or settings.backend
                settings = msgspec.structs.replace(settings, backend=backend)
            found = [problem for problem in [serving_problem(folder.resolve(), settings)] if problem]
    for problem in found:
        _failed(problem)
    if not found:
        print(f"{folder}: nothing wrong, run by {settings.backend}")
    return 1 if found else 0


def _describe(options: argparse.Namespace) -> int:
    from model_server.describe.adding import add
    from model_server.describe.draft import describe, write
    from model_server.describe.options import addition, asked
    from model_server.manifests import json_text

    if options.add_to:
        with _quiet():
            print(add(options.file, options.add_to, addition(options)))
        return 0
    draft, notes = describe(options.file, asked(options), options.into)
    if options.into:
        write(draft, options.into)
    print(f"{options.into / MANIFEST}: written" if options.into else json_text(draft))
    for note in notes:
        print(f"look over: {note}", file=sys.stderr)
    return 0


def _export(options: argparse.Namespace) -> int:
    from model_server.export import add, export
    from model_server.export.checkpoints import Checkpoint, export_checkpoint

    of_checkpoint = options.name == "sam"
    if of_checkpoint != bool(options.checkpoint and options.type) or (options.bundle and not of_checkpoint):
        options.usage("sam needs --checkpoint and --type, and only sam takes these and --bundle")
    if of_checkpoint:
        checkpoint = Checkpoint(options.checkpoint, options.type, options.bundle)
        print(export_checkpoint(checkpoint, _models(options.into), replace=options.replace))
        return 0
    if options.backend:
        print(add(options.name, options.backend, _models(options.into)))
        return 0
    print(export(options.name, _models(options.into), replace=options.replace))
    return 0


def _convert(options: argparse.Namespace) -> int:
    from model_server.conversion.convert import convert
    from model_server.conversion.options import wishes

    report, good = convert(_bundle(options.source), options.into, wishes(options))
    print(report)
    return 0 if good else 1


def _bundles(given: Sequence[str]) -> list[Path]:
    """Those, or all that are in the models folder."""
    if given:
        return [_bundle(one) for one in given]
    found = sorted(path.parent for path in _models(None).glob(f"*/{MANIFEST}"))
    if not found:
        raise Stopped(f"nothing was compared: there is no bundle in {_models(None)}")
    return found


def _parity(options: argparse.Namespace) -> int:
    from model_server.comparison.options import parity_plan
    from model_server.comparison.parity import parity

    report, good = parity(_bundles(options.bundles), parity_plan(options))
    print(report)
    return 0 if good else 1


def _compare(options: argparse.Namespace) -> int:
    from model_server.comparison.compare import compare
    from model_server.comparison.options import compare_plan
    from model_server.comparison.plots import check_matplotlib
    from model_server.comparison.report import text, write

    if options.into:
        check_matplotlib()
    found, good = compare(_bundles(options.bundles), compare_plan(options))
    print(text(found))
    if options.into:
        write(found, options.into)
    return 0 if good else 1


def _stage(options: argparse.Namespace) -> int:
    from model_server.staging.stage import Additions, stage

    print(
        stage(
            options.out,
            options.bundle,
            _models(options.models),
            options.requirements,
            backend=options.backend,
            cloud=options.cloud,
            additions=Additions(options.optimise, options.profile, options.git_sha),
        )
    )
    return 0


def _optimise(options: argparse.Namespace) -> int:
    from model_server.staging.optimise import optimised_copy

    print(optimised_copy(_bundle(options.bundle), options.into, replace=options.replace))
    return 0


def _profile(options: argparse.Namespace) -> int:
    from model_server.staging.profile import profile

    print(profile(_bundle(options.bundle), options.backend))
    return 0


def _embed(options: argparse.Namespace) -> int:
    from model_server.embed import embed, sentence

    settings = Settings.load()
    out = options.out or (settings.embeddings and Path(settings.embeddings))
    if not out:
        options.usage("say where to, by --out or by THINLENS_EMBEDDINGS")
        return 2
    if options.backend:
        settings = msgspec.structs.replace(settings, backend=options.backend)
    folder = _bundle(options.bundle) if options.bundle else _promptable(Path(settings.models))
    with _quiet():
        report = embed(options.pictures, folder, out, settings)
    for problem in report.wrong:
        _failed(problem)
    print(sentence(report, out))
    return 1 if report.wrong else 0


def _promptable(models: Path) -> Path:
    """The one bundle for promptable segmentation."""
    folders = sorted(path.parent for path in models.glob(f"*/{MANIFEST}"))
    found = [folder for folder in folders if read_bundle(folder).model.task == "promptable-segmentation"]
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        raise Stopped(f"name a bundle: of those for promptable segmentation there is not one, but {names}")
    return found[0]


def _tfserving(options: argparse.Namespace) -> int:
    from model_server.tfserving import Options, write_repository

    chosen = Options(options.base_path, options.version, options.batching, options.replace)
    print(write_repository(_bundle(options.bundle), options.out, chosen))
    return 0


def _triton(options: argparse.Namespace) -> int:
    from model_server.triton.repository import write_repository
    from model_server.triton.serve import serving

    folders = [_bundle(name) for name in options.bundles]
    print(write_repository(folders, options.out, serving(options), replace=options.replace))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from model_server.triton.means import means
    from model_server.triton.serve import serve, serving
    from model_server.triton.wheel import Ports

    ports = Ports(options.http_port, options.grpc_port, options.metrics_port)
    chosen = means(options.means, options.python, options.image, options.device)
    return serve([_bundle(name) for name in options.bundles], serving(options), chosen, ports)
