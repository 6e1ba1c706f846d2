"""Lays out the bundles of an image: `bundles.py RUNTIME MODELS OUT NAME...`.

Of each bundle everything but the weights that RUNTIME does not run; an external image holds none. Needs nothing but
Python, and checks what it takes against the checksums of model.json.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def lay(runtime: str, source: Path, target: Path) -> None:
    """Copies the bundle `source` to `target`. Exits with a sentence where a file is missing or not as declared."""
    wanted: dict[str, str] = {}
    unwanted: set[str] = set()
    for backend, artifact in _artifacts(json.loads((source / "model.json").read_text(encoding="utf-8-sig"))):
        sums = {file["file"]: file["sha256"] for file in (artifact, *artifact.get("data", ()))}
        if backend == runtime:
            wanted |= sums
        else:
            unwanted |= set(sums)
    if not wanted and runtime != "external":
        sys.exit(f"{source.name}: model.json names no weights for {runtime!r}")
    _check(source, wanted)
    left_out = {(source / file).resolve() for file in unwanted - set(wanted)}
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.resolve() not in left_out:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _artifacts(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for network in manifest["networks"].values():
        yield from network.get("artifacts", {}).items()


def _check(source: Path, wanted: dict[str, str]) -> None:
    for file, sha256 in wanted.items():
        path = source / file
        if not path.is_file():
            sys.exit(f"{source.name}: {file!r}, which model.json names, is missing")
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            sys.exit(f"{source.name}: {file!r}: expected sha256 {sha256}, found {found}")


if __name__ == "__main__":
    runtime, models, out, *names = sys.argv[1:]
    if not names:
        sys.exit("BUNDLES: expected names of bundles, separated by spaces; found none")
    for name in names:
        if not (Path(models) / name / "model.json").is_file():
            sys.exit(f"BUNDLES: there is no bundle {name!r} in model_server/models")
        lay(runtime, Path(models) / name, Path(out) / name)
