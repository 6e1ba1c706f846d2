"""The labels of a draft: given, or those that an exporter has left in the file."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from model_server.failures import Stopped


def read(given: str | None, own: Mapping[int, str] | None) -> list[str | None]:
    """The labels by class index: from a file with one a line, from a list, or the file's own."""
    if given is not None and Path(given).suffix == ".txt" and not _is_file(given):
        raise Stopped(f"--labels: there is no file {given}")
    if given is None:
        if not own:
            raise Stopped(
                "the file names no labels itself: give --labels, a file with one a line or a list like cat,dog"
            )
        return [own.get(index) for index in range(max(own) + 1)]
    try:
        lines = Path(given).read_text(encoding="utf-8").splitlines() if _is_file(given) else given.split(",")
    except UnicodeDecodeError as error:
        raise Stopped(f"--labels: {given} is not UTF-8 text: {error}") from error
    return [line.strip() or None for line in lines]


def _is_file(given: str) -> bool:
    try:
        return Path(given).is_file()
    except OSError:  # a list longer than a name may be
        return False


def parsed(names: str) -> dict[int, str]:
    """What some exporters, Ultralytics' among them, write as `names`, in Python's words: a dictionary of labels by
    index, or a list. Raises Stopped."""
    try:
        value = ast.literal_eval(names)
        pairs = enumerate(value) if isinstance(value, list) else dict(value).items()
        return {int(index): str(label) for index, label in pairs}
    except (ValueError, SyntaxError, TypeError) as error:
        raise Stopped(f"the labels in the file's metadata cannot be read ({error}): give --labels") from error
