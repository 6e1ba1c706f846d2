"""The version that a model server has a bundle's networks under, which is a number in a folder's name."""

from __future__ import annotations

from model_server.failures import Stopped

_LARGEST = 2**31 - 1
_LONGEST = len(str(_LARGEST))
_EXPECTED = f"whole number from 1 to {_LARGEST}"


def served_version(bundle: str, own: str, asked: str | None = None) -> tuple[int, str]:
    """The version that is asked for, else the bundle's own, else 1 with a note that says so; the note is empty where
    there is nothing to say. Raises Stopped where what is asked for is no such number."""
    if asked is not None:
        version = _number(asked)
        if version is None:
            raise Stopped(f"--version: expected a {_EXPECTED}, found {_short(asked)!r}")
        return version, ""
    version = _number(own)
    if version is None:
        return 1, f"{bundle}: version {_short(own)!r} is no {_EXPECTED}; served as version 1"
    return version, ""


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST):
        return None
    return int(text) if 0 < int(text) <= _LARGEST else None


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"
