"""The folder that a release is made in, all of which is published."""

from __future__ import annotations

from pathlib import Path

from docker.release.checksums import NAME as SUMS
from model_server.failures import Stopped

NOTES = "RELEASE.md"
_OURS = ("thinlens-", SUMS, NOTES)


def clear(dist: Path) -> None:
    """Takes out what an earlier run has made. Raises Stopped where anything else lies there, and leaves all of it."""
    dist.mkdir(parents=True, exist_ok=True)
    found = sorted(dist.iterdir())
    for path in found:
        if path.is_dir() or not path.name.startswith(_OURS):
            raise Stopped(f"{path} was not made by this command, and all of {dist} is published; remove it")
    for path in found:
        path.unlink()
