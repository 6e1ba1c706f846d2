"""What git says of the sources that a release is made from."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from model_server.failures import Stopped

_EPOCH = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True, slots=True)
class Checkout:
    """The commit at `root`, when it was made (seconds since 1970), its tags, and whether nothing was changed since."""

    root: Path
    sha: str
    time: int
    tags: tuple[str, ...]
    clean: bool


def read_checkout(root: Path) -> Checkout:
    """Raises Stopped where there is no git, or no commit."""
    sha, time = git(root, "log", "-1", "--format=%H %ct").split()
    return Checkout(
        root,
        sha,
        _time(time),
        tuple(git(root, "tag", "--points-at", "HEAD").split()),
        not git(root, "status", "--porcelain"),
    )


def git(root: Path, *words: str) -> str:
    """What git writes. Raises Stopped with its last line where it fails."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Stopped("there is no git here; a release is made from its history") from error
    if done.returncode:
        raise Stopped(f"{root}: git {words[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout.strip()


def check_version(checkout: Checkout, known: str, given: str | None, *, dry: bool) -> None:
    """Raises Stopped where the version that is `given`, the sources' and the commit's tag are not one; a dry run needs
    no tag and no commit."""
    if given is not None and given.removeprefix("v") != known:
        raise Stopped(f"version {given}: expected {known}, which shared/__init__.py names")
    if dry:
        return
    if not checkout.clean:
        raise Stopped("the sources are not as committed; commit or remove what `git status` shows, or use --dry")
    if f"v{known}" not in checkout.tags:
        found = ", ".join(checkout.tags) or "none"
        raise Stopped(f"expected the tag v{known} on commit {checkout.sha[:7]}, found {found}; or use --dry")


def _time(committed: str) -> int:
    given = os.environ.get(_EPOCH) or committed
    if not given.isdecimal():
        raise Stopped(f"{_EPOCH}: expected seconds since 1970, found {given!r}")
    return int(given)
