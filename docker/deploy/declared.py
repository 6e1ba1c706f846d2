"""The THINLENS_ settings of a deployment, checked against `shared/settings.py` before anything is changed."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from docker.deploy.commands import HIDDEN
from model_server.failures import Stopped

PREFIX = "THINLENS_"
API_KEYS = "THINLENS_API_KEYS"
SERVERS = ("triton", "tfserving")
_SETTINGS = Path(__file__).resolve().parents[2] / "shared" / "settings.py"
_SECRET = re.compile(r"(?:.*_)?(?:KEYS?|TOKEN|SECRET|PASSWORD)")


@dataclass(frozen=True, slots=True)
class Declared:
    """What is set, by the variable's name, and what is taken away; settings of neither list stay as they are."""

    values: Mapping[str, str]
    unset: tuple[str, ...] = ()

    @property
    def plain(self) -> dict[str, str]:
        return {name: value for name, value in self.values.items() if not is_secret(name)}

    @property
    def secret(self) -> dict[str, str]:
        return {name: value for name, value in self.values.items() if is_secret(name)}

    @property
    def shown(self) -> dict[str, str]:
        return {name: HIDDEN if is_secret(name) else value for name, value in self.values.items()}


def unread_keys(app: str, error: Stopped) -> Stopped:
    """What stops a deployment before anything is changed: it could not be tested."""
    why = f"{app} has {API_KEYS} from before, which the smoke test needs and cannot read"
    return Stopped(f"{why}; give --secret {API_KEYS}\n{error}")


def is_secret(name: str) -> bool:
    """Whether the value of this setting is nobody else's business."""
    return _SECRET.fullmatch(name) is not None


def declared(
    given: Sequence[str], named: Sequence[str], file: Path | None, unset: Sequence[str], environ: Mapping[str, str]
) -> Declared:
    """The settings of --setting, --secret, --settings-file and --unset. Raises Stopped for one that there is not, one
    that is given twice, and a secret on the command line."""
    found: dict[str, str] = {}
    for name, value in [*_of_file(file), *_of_words(given), *_of_environ(named, environ)]:
        if name in found:
            raise Stopped(f"{name} is given twice")
        found[name] = value
    for name in unset:
        _check_name(name)
        if name in found:
            raise Stopped(f"{name} is both set and unset")
    return Declared({name: checked(name, value) for name, value in found.items()}, tuple(unset))


def checked(name: str, value: str) -> str:
    """`value`, where it is one of those that the setting takes. Raises Stopped."""
    _check_name(name)
    shown = HIDDEN if is_secret(name) else repr(value)
    choices = known()[name]
    if choices and value not in choices:
        raise Stopped(f"{name}: expected {', '.join(choices)}, found {shown}")
    if not value or not value.isprintable():
        raise Stopped(f"{name}: expected printable characters, found {shown}")
    if value.startswith("@"):
        raise Stopped(f"{name}: az reads a value that begins with @ from a file; found {shown}")
    return value


@cache
def known() -> dict[str, tuple[str, ...]]:
    """Every setting with the words that it takes; none where it takes more than a few. The file is read and not
    imported: a deployment needs no package."""
    body = ast.parse(_SETTINGS.read_text(encoding="utf-8")).body
    of_hosts = next(
        ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HOST_VARIABLES"
    )
    settings = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    fields = [node for node in settings.body if isinstance(node, ast.AnnAssign)]
    named = {ast.unparse(node.target): _choices(node.annotation) for node in fields}
    return {PREFIX + name.upper(): words for name, words in named.items() if name not in of_hosts.values()}


def _choices(annotation: ast.expr) -> tuple[str, ...]:
    match annotation:
        case ast.Subscript(
            value=ast.Name("Annotated"),
            slice=ast.Tuple(elts=[ast.Subscript(value=ast.Name("Literal"), slice=words), *_]),
        ):
            elements = words.elts if isinstance(words, ast.Tuple) else [words]
            return tuple(str(ast.literal_eval(element)) for element in elements)
    return ()


def _check_name(name: str) -> None:
    if name not in known():
        near = difflib.get_close_matches(name, known(), n=1)
        raise Stopped(f"{name}: unknown setting" + (f"; did you mean {near[0]}?" if near else ""))


def _of_words(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in given:
        name, sign, value = word.partition("=")
        if not sign:
            raise Stopped(f"--setting: expected {PREFIX}NAME=VALUE, found no '='")
        if is_secret(name):
            raise Stopped(f"{name} is a secret: put it into the environment and say --secret {name}, or into a file")
        yield name, value


def _of_environ(named: Sequence[str], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in named:
        _check_name(name)
        if not environ.get(name):
            raise Stopped(f"--secret {name}: expected its value in the environment, found none")
        yield name, environ[name]


def _of_file(path: Path | None) -> Iterator[tuple[str, str]]:
    """The NAME=VALUE lines of a file; empty lines and those of # are left out."""
    if path is None:
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Stopped(f"--settings-file {path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, sign, value = line.partition("=")
            if not sign:
                raise Stopped(f"--settings-file {path}: line {number}: expected NAME=VALUE")
            yield name.strip(), value.strip()
