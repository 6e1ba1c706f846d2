"""The cloud's own tool (az, gcloud), run for real or only printed."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from model_server.failures import Stopped

HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Handed:
    """Text that a command reads from a file, so that no list of processes shows it; `before` is what the tool wants in
    front of the path, `shown` is the text without its `secrets`, which are hidden where the tool repeats them."""

    name: str
    text: str
    shown: str
    before: str = ""
    secrets: tuple[str, ...] = ()


Word: TypeAlias = str | Handed


def handed_json(name: str, value: object, shown: object, before: str = "", secrets: Iterable[str] = ()) -> Handed:
    """`value` as a JSON file."""
    return Handed(name, json.dumps(value), json.dumps(shown), before, tuple(secrets))


class Cloud(Protocol):
    """What a deployment asks of a tool. Every call raises Stopped where the command fails."""

    dry: bool

    def do(self, *words: Word, expected: Any = None) -> Any:
        """What the command answers, as JSON; a rehearsal takes `expected` for it."""
        ...

    def find(self, *words: Word, expected: Any) -> list[Any]:
        """What a listing finds; a rehearsal finds nothing, or `expected` where it rehearses a second deployment."""
        ...

    def text(self, *words: Word, expected: str) -> str:
        """What the command answers, as it stands."""
        ...


class Tool:
    """Runs the commands."""

    dry = False

    def __init__(
        self, program: str, hint: str, ending: Sequence[str], json_ending: Sequence[str], hidden: Sequence[str]
    ):
        found = shutil.which(program)
        if found is None:
            raise Stopped(f"{program}: not found; {hint}")
        self._program, self._path = program, found
        self._ending, self._json_ending = tuple(ending), tuple(json_ending)
        self._hidden = set(hidden)
        self._files = TemporaryDirectory(prefix="deploy-")

    def __enter__(self) -> Tool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.cleanup()

    def do(self, *words: Word, expected: Any = None) -> Any:  # noqa: ARG002
        output = self._run([*words, *self._ending, *self._json_ending])
        try:
            return json.loads(output) if output.strip() else None
        except ValueError as error:
            raise Stopped(
                f"{self._program} {_line(words)}: expected JSON, found {len(output)} characters of something else"
            ) from error

    def find(self, *words: Word, expected: Any) -> list[Any]:  # noqa: ARG002
        return self.do(*words) or []

    def text(self, *words: Word, expected: str) -> str:  # noqa: ARG002
        return self._run([*words, *self._ending]).strip()

    def _run(self, words: Sequence[Word]) -> str:
        sys.stderr.write(f"+ {self._program} {_line(words)}\n")
        arguments = [self._written(word) if isinstance(word, Handed) else word for word in words]
        done = subprocess.run(
            [self._path, *arguments], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Stopped(f"{self._program} {_line(words)}: exit status {done.returncode}\n{self._told(done)}")
        return done.stdout

    def _told(self, done: subprocess.CompletedProcess[str]) -> str:
        """What the tool says of its failure, without the secrets that it may repeat."""
        text = done.stderr.strip() or done.stdout.strip() or "(it says nothing)"
        for secret in sorted(filter(None, self._hidden), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text

    def _written(self, handed: Handed) -> str:
        self._hidden.update(handed.secrets)
        path = Path(self._files.name) / handed.name
        path.touch(mode=0o600)
        path.write_text(handed.text, encoding="utf-8")
        return f"{handed.before}{path}"


class Rehearsal:
    """Prints the commands as they would be run, one a line, and runs none."""

    dry = True

    def __init__(self, program: str, ending: Sequence[str], json_ending: Sequence[str], existing: bool):
        self._program, self._existing = program, existing
        self._ending, self._json_ending = tuple(ending), tuple(json_ending)

    def do(self, *words: Word, expected: Any = None) -> Any:
        self._print([*words, *self._ending, *self._json_ending])
        return expected

    def find(self, *words: Word, expected: Any) -> list[Any]:
        self.do(*words)
        return [expected] if self._existing else []

    def text(self, *words: Word, expected: str) -> str:
        self._print([*words, *self._ending])
        return expected

    def _print(self, words: Sequence[Word]) -> None:
        for word in words:
            if isinstance(word, Handed):
                sys.stdout.write(f"# {word.name}: {word.shown}\n")
        sys.stdout.write(f"{self._program} {_line(words)}\n")


def _line(words: Sequence[Word]) -> str:
    return shlex.join(f"{word.before}{word.name}" if isinstance(word, Handed) else word for word in words)


def pairs(values: Mapping[str, str]) -> list[str]:
    """`values` as KEY=VALUE words."""
    return [f"{name}={value}" for name, value in values.items()]
