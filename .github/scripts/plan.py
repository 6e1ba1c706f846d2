"""What the images' workflow builds and where: python3 -m docker.images list --json | python3 .github/scripts/plan.py

Writes two lines for GITHUB_OUTPUT: `builds`, one for each image and platform, and `names`, the images.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_RUNNERS = {"linux/amd64": "ubuntu-24.04", "linux/arm64": "ubuntu-24.04-arm"}


def plan(rows: Sequence[Mapping[str, Any]], origin: Mapping[str, str]) -> dict[str, Any]:
    """The outputs, of the rows that `docker.images list --json` writes; `origin` are build arguments of all."""
    return {
        "builds": [_build(row, platform, origin) for row in rows for platform in row["platforms"].split(",")],
        "names": [row["name"] for row in rows],
    }


def _build(row: Mapping[str, Any], platform: str, origin: Mapping[str, str]) -> dict[str, Any]:
    arguments = {**row["arguments"], **origin}
    return {
        "name": row["name"],
        "platform": platform,
        "runner": _RUNNERS[platform],
        "file": f"{row['name']}-{platform.rpartition('/')[2]}",
        "arguments": "\n".join(f"{name}={value}" for name, value in arguments.items()),
    }


def main() -> None:
    """Reads standard input."""
    version = runpy.run_path(str(_ROOT / "shared" / "__init__.py"))["__version__"]
    origin = {"GIT_SHA": os.environ["GITHUB_SHA"], "VERSION": version}
    for name, value in plan(json.load(sys.stdin), origin).items():
        sys.stdout.write(f"{name}={json.dumps(value)}\n")


if __name__ == "__main__":
    main()
