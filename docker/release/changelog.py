"""What has changed since the last release, by the commits since its tag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from docker.release.checkout import Checkout, git
from model_server.failures import Stopped

AREAS = (
    ("Serving", ("shared/", "function_app/", "gunicorn.conf.py", "requirements")),
    ("Models and conversion", ("model_server/",)),
    ("Images and deployment", ("docker/", ".github/workflows/", ".dockerignore")),
    ("Documentation", ("README.md", "LICENSE", "NOTICE", ".github/")),
    ("Tests and development", ("",)),
)
"""Titles, and how the paths begin that belong there: a path belongs to the first that fits."""

_WITH_THE_REST = 3  # from here on an area counts only in commits that touch no other: every change has tests and pages
_COMMIT, _FIELD = "\x1e", "\x1f"


class Commit(NamedTuple):
    sha: str
    subject: str
    paths: tuple[str, ...]


def changelog(checkout: Checkout, version: str, *, dry: bool = False) -> str:
    """The version's section, in Markdown. Raises Stopped where the history is cut short; a dry run only says so."""
    shallow = git(checkout.root, "rev-parse", "--is-shallow-repository") == "true"
    if shallow and not dry:
        raise Stopped("the changelog needs the whole history; run `git fetch --unshallow --tags` first")
    last = _last_tag(checkout, version)
    commits = _commits(checkout, last)
    if not commits:
        raise Stopped(f"nothing was committed since {last}; there is nothing to release")
    day = datetime.fromtimestamp(checkout.time, UTC).date()
    since = f"Changes since {last}." if last else "The first release."
    if shallow:
        since = "A rehearsal where the history is cut short: these are the changes that are known here."
    return "\n\n".join([f"## {version} ({day})", since, *_sections(commits)]) + "\n"


def _last_tag(checkout: Checkout, version: str) -> str | None:
    """The nearest tag of a version before this one."""
    merged = git(checkout.root, "tag", "--list", "v[0-9]*", "--merged", "HEAD").split()
    if not set(merged) - {f"v{version}"}:
        return None
    words = ("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "--exclude", f"v{version}")
    return git(checkout.root, *words)


def _commits(checkout: Checkout, last: str | None) -> list[Commit]:
    form = f"--format={_COMMIT}%h{_FIELD}%s{_FIELD}"
    span = f"{last}..HEAD" if last else "HEAD"
    # Paths as they are written, whatever is set for this user.
    text = git(checkout.root, "-c", "core.quotePath=false", "log", "--no-merges", "--name-only", form, span)
    return [_commit(record) for record in text.split(_COMMIT) if record]


def _commit(record: str) -> Commit:
    sha, subject, paths = record.split(_FIELD)
    return Commit(sha, subject, tuple(paths.split("\n")[1:]))


def _sections(commits: Sequence[Commit]) -> list[str]:
    """The commits under the titles of their areas, the newest first."""
    areas = [_area(commit) for commit in commits]
    return [
        f"### {title}\n\n" + "\n".join(_line(commit) for commit, area in zip(commits, areas, strict=True) if area == at)
        for at, (title, _) in enumerate(AREAS)
        if at in areas
    ]


def _area(commit: Commit) -> int:
    """Where the commit changed most, but for what accompanies every change."""
    touched = Counter(_area_of(path) for path in commit.paths if path)
    telling = {area: count for area, count in touched.items() if area < _WITH_THE_REST} or touched
    return max(telling, key=lambda area: (telling[area], -area), default=len(AREAS) - 1)


def _area_of(path: str) -> int:
    return next(at for at, (_, beginnings) in enumerate(AREAS) if path.startswith(beginnings))


def _line(commit: Commit) -> str:
    return f"- {commit.subject} ({commit.sha})"
