"""One stream into one file that appears only whole."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from model_server.progress import progress_bar

_CHUNK = 1 << 20


def partial_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def copy_stream(content: IO[bytes], target: Path, total: int | None) -> None:
    """All of `content` to `target`, with a progress bar."""
    partial = partial_of(target)
    with partial.open("wb") as file, progress_bar(target.name, total) as bar:
        while chunk := content.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    partial.replace(target)
