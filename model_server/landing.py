"""Where a download grows: beside its target, under a name that no model has, and moved there whole at the end."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

from model_server.failures import Stopped
from model_server.progress import say_on_terminal

TRITON_MARK, TFSERVING_MARK, STAGE_MARK = ".thinlens-triton", ".thinlens-tfserving", ".thinlens-stage"
"""Empty or not, a file of this name says which command has made a folder."""

_MARKS = ("model.json", TRITON_MARK, TFSERVING_MARK, STAGE_MARK)
_LOCK, _OLD = ".lock", ".old"

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str], *, wait: bool) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str], *, wait: bool) -> None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_place(out: Path, mark: str, *, replace: bool) -> None:
    """Raises Stopped where the folder `out` may not be written: it holds what has no file `mark`, and so is not of the
    command's making; or it is there and not to be replaced; or it lies inside a bundle or another folder of ours."""
    if out.exists() and not (out / mark).is_file():
        raise Stopped(f"{out} exists and was not made by this command; choose another folder or remove it")
    if out.exists() and not replace:
        raise Stopped(f"{out} exists already; --replace puts the new one in its place")
    for outer in out.resolve().parents:
        for found in _MARKS:
            if (outer / found).is_file():
                raise Stopped(f"{out} lies inside {outer}, which has a {found} of its own; choose another folder")


class Landing:
    """The place beside `target`. What an interrupted command left in `content` is still there: that is what resumes."""

    def __init__(self, target: Path, folder: Path) -> None:
        self.target = target
        self.content = folder / target.name
        self._folder = folder

    def land(self) -> None:
        """Moves `content`, a file or a folder, to the target in one step; what was there before gives way."""
        for path in [self.content, *self.content.rglob("*")]:
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if self.target.exists():
            old = self._folder / _OLD
            shutil.rmtree(old, ignore_errors=True)
            self.target.rename(old)
        self.content.rename(self.target)


@contextmanager
def landing(target: Path, *, resumes: bool = True) -> Iterator[Landing]:
    """The one Landing for `target`: a second command, in whatever process, waits until the first has ended. What an
    interrupted one has written stays only where the next one `resumes` it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f"{target.name}.part")
    with _locked(folder):
        place = Landing(target, folder)
        try:
            yield place
        except BaseException:
            if not resumes or not _holds_files(place.content):
                _remove(folder)
            raise
        _remove(folder)


def _remove(folder: Path) -> None:
    """Out of the way first: whoever waits may put a lock file of its own into a folder of this name at any time."""
    aside = folder.with_name(f"{folder.stem}-{uuid4().hex}.part")
    folder.rename(aside)
    shutil.rmtree(aside)


def _holds_files(path: Path) -> bool:
    return path.is_file() or any(inner.is_file() for inner in path.rglob("*"))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock file in `folder`, which the holder before may just have removed."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            file = (folder / _LOCK).open("a")
        except FileNotFoundError:
            continue
        with file:
            _acquire(file, folder)
            if _is_still(folder / _LOCK, file):
                yield
                return


def _acquire(file: IO[str], folder: Path) -> None:
    try:
        _lock(file, wait=False)
    except OSError:
        say_on_terminal(f"waiting for another command that writes {folder.name}")
        _lock(file, wait=True)


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
