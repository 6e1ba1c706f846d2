"""The checksums of a release, in the form that `sha256sum -c` reads."""

from __future__ import annotations

from pathlib import Path

from model_server.failures import Stopped
from shared.artifacts import sha256_of

NAME = "SHA256SUMS"


def write_checksums(dist: Path) -> Path:
    """Lists every file that lies in `dist` beside the list itself. Raises Stopped where there is none."""
    files = sorted(path for path in dist.iterdir() if path.is_file() and path.name != NAME) if dist.is_dir() else []
    if not files:
        raise Stopped(f"{dist}: there is nothing to sum up; make the packages first")
    out = dist / NAME
    out.write_text("".join(f"{sha256_of(path)}  {path.name}\n" for path in files), encoding="utf-8")
    return out
