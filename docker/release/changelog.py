"""What has changed since the last release, by the commits since its tag."""

from __future__ import annotations

from datetime import UTC, datetime

from docker.release.checkout import Checkout, git
from model_server.failures import Stopped


def changelog(checkout: Checkout, version: str, *, dry: bool = False) -> str:
    """The version's section, in Markdown. Raises Stopped where the history is cut short; a dry run only says so."""
    shallow = git(checkout.root, "rev-parse", "--is-shallow-repository") == "true"
    if shallow and not dry:
        raise Stopped("the changelog needs the whole history; run `git fetch --unshallow --tags` first")
    last = _last_tag(checkout, version)
    commits = git(checkout.root, "log", "--no-merges", "--format=- %s (%h)", f"{last}..HEAD" if last else "HEAD")
    if not commits:
        raise Stopped(f"nothing was committed since {last}; there is nothing to release")
    day = datetime.fromtimestamp(checkout.time, UTC).date()
    since = f"Changes since {last}." if last else "The first release."
    if shallow:
        since = "A rehearsal where the history is cut short: these are the changes that are known here."
    return f"## {version} ({day})\n\n{since}\n\n{commits}\n"


def _last_tag(checkout: Checkout, version: str) -> str | None:
    """Of the newest version before this one; of the newest final one, where this one is final."""
    words = ("tag", "--list", "v[0-9]*", "--merged", "HEAD", "--sort=-version:refname")
    tags = git(checkout.root, "-c", "versionsort.suffix=-", *words).split()  # 1.0.0-rc1 comes before 1.0.0
    return next((tag for tag in tags if tag != f"v{version}" and ("-" in version or "-" not in tag)), None)
