"""A release without anything to remember: python -m docker.release COMMAND

all  every package, what is in it, the changelog, the checksums; --dry needs no tag and no commit
zip  packages, with what is in them
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from docker.release.building import Made, build
from docker.release.byte_code import interpreter
from docker.release.changelog import changelog
from docker.release.checkout import Checkout, check_version, read_checkout
from docker.release.checksums import write_checksums
from docker.release.dist import NOTES, clear
from docker.release.notes import notes
from docker.release.variants import PYTHONS, Build, builds
from model_server.failures import Stopped
from shared import __version__
from shared.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str]) -> int:
    """Runs one command; gives its exit status. A failure is one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (Stopped, ConfigurationError) as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return 0


def _failed(message: str) -> int:
    sys.stderr.write(f"release: {' '.join(message.split())}\n")
    return 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m docker.release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    everything, packages = commands.add_parser("all"), commands.add_parser("zip")
    for command, run in ((everything, _all), (packages, _zip)):
        command.set_defaults(run=run)
        command.add_argument("--dist", type=Path, default=ROOT / "dist", metavar="DIR", help="default: dist")
        command.add_argument("--variant", action="append", default=[], help="may be given several times; default: all")
        command.add_argument("--python", action="append", choices=PYTHONS, help="may be given several times")
        command.add_argument(
            "--interpreter",
            action="append",
            type=Path,
            default=[],
            metavar="PATH",
            help="another Python, beside this and those on PATH, to compile byte code with",
        )
    everything.add_argument("--dry", action="store_true", help="no tag is needed, and the sources may be changed")
    everything.add_argument("--version", help="fail where the sources are of another one")
    return parser


def _all(options: argparse.Namespace) -> None:
    checkout, wanted = read_checkout(ROOT), builds(options.variant, options.python or PYTHONS)
    check_version(checkout, __version__, options.version, dry=options.dry)
    compilers = _compilers(wanted, options.interpreter)
    if missing := [python for python, found in compilers.items() if found is None and not options.dry]:
        raise Stopped(
            f"no Python {', '.join(missing)} to compile byte code with; name it with --interpreter, or use --dry"
        )
    text = changelog(checkout, __version__, dry=options.dry)
    clear(options.dist)
    made = _built(wanted, checkout, compilers, options.dist)
    out = options.dist / NOTES
    out.write_text(notes(text, wanted, __version__), encoding="utf-8")
    made.append(Made(out, "the changelog, and what each file is for"))
    made.append(Made(write_checksums(options.dist), "not signed: the release workflow does that"))
    _say(_table(made))
    if options.dry:
        _say("A dry run: nothing is signed, tagged or published." + ("" if checkout.clean else _CHANGED))


_CHANGED = " The sources are not as committed, so that /version names no commit."


def _zip(options: argparse.Namespace) -> None:
    checkout = read_checkout(ROOT)
    wanted = builds(options.variant, options.python or PYTHONS[:1])
    _say(_table(_built(wanted, checkout, _compilers(wanted, options.interpreter), options.dist)))


def _compilers(wanted: Sequence[Build], others: Sequence[Path]) -> dict[str, str | None]:
    return {python: interpreter(python, others) for python in dict.fromkeys(one.python for one in wanted) if python}


def _built(wanted: Sequence[Build], checkout: Checkout, compilers: Mapping[str, str | None], dist: Path) -> list[Made]:
    return [
        made
        for one in wanted
        for made in build(one, __version__, checkout, dist, compilers[one.python] if one.python else None)
    ]


def _table(made: Sequence[Made]) -> str:
    width = max(len(each.path.name) for each in made)
    rows = [f"{each.path.name:{width}}  {each.path.stat().st_size / 1e6:8.2f}  {each.note}" for each in made]
    return "\n".join([f"{'file':{width}}  {'MB':>8}", *rows])
