"""Which build this is: what the command that laid out the deployed folder was told."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

BUILD = "build.json"
"""The file beside this one. A checkout has none."""


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    git_sha: str


@cache
def git_sha() -> str | None:
    """The commit that was built; None where nobody has said."""
    try:
        return msgspec.json.decode((Path(__file__).parent / BUILD).read_bytes(), type=Build).git_sha
    except FileNotFoundError:
        return None
