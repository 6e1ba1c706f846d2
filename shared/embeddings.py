"""What encoders have made of pictures, kept for the next prompt: bounded by bytes, shared by no two pictures or models.

A key says of which picture and model the arrays are, and nothing of who asked: whoever sends the same picture is given
the same arrays, and nobody can ask for a picture that he does not have.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.call import Call
    from shared.tensors import Tensors

_log = logging.getLogger("thinlens")


class Memo:
    """Arrays by key, the least recently used given up first. With a `folder` they are also looked for there, and left
    there for the next process; nothing is ever taken away from it."""

    def __init__(self, max_bytes: int, folder: Path | None = None) -> None:
        self._max_bytes = max_bytes
        self._folder = folder
        self._lock = Lock()
        self._kept: OrderedDict[str, Tensors] = OrderedDict()
        self._kept_bytes = 0
        self._making: dict[str, _Making] = {}

    @property
    def kept_bytes(self) -> int:
        """What the arrays that are kept take in memory."""
        return self._kept_bytes

    def has(self, key: str) -> bool:
        """Whether `kept` would most likely give the arrays without making them."""
        if key in self._kept or key in self._making:
            return True
        if self._folder is None:
            return False
        from shared import embedding_files

        return embedding_files.exists(self._folder, key)

    def kept(self, key: str, call: Call, make: Callable[[], Tensors]) -> Tensors:
        """The arrays of `key`, not to be written to; made once however many ask at the same time. Who waits for another
        one's making waits no longer than his own deadline, and makes them himself where the other has failed. Raises
        DeadlineExceeded and what `make` raises."""
        while True:
            with self._lock:
                found = self._found(key)
                if found is not None:
                    return found
                making = self._making.get(key)
                if making is None:
                    mine = self._making[key] = _Making()
                    break
            if making.done.wait(max(0.0, call.remaining_s)) and making.arrays is not None:
                return making.arrays
            call.check()
        try:
            mine.arrays = self._read_or_made(key, make)
        finally:
            with self._lock:
                del self._making[key]
                if mine.arrays is not None:
                    self._keep(key, mine.arrays)
            mine.done.set()
        return mine.arrays

    def _found(self, key: str) -> Tensors | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def _read_or_made(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        if self._folder is None:
            return _unwritable(make())
        from shared import embedding_files

        found = embedding_files.read(self._folder, key)
        if found is None:
            found = _unwritable(make())
            try:
                embedding_files.write(self._folder, key, found)
            except OSError as error:  # a folder that is only read from is as good
                _log.warning("the embedding cannot be kept in THINLENS_EMBEDDINGS: %s", error.strerror)
        return found

    def _keep(self, key: str, arrays: Tensors) -> None:
        size = bytes_of(arrays)
        if size > self._max_bytes:
            return
        self._kept[key] = arrays
        self._kept_bytes += size
        while self._kept_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= bytes_of(oldest)


class _Making:
    """Arrays under way; None once they are `done` says that making them has failed."""

    def __init__(self) -> None:
        self.done = Event()
        self.arrays: Tensors | None = None


def bytes_of(arrays: Tensors) -> int:
    return sum(array.nbytes for array in arrays.values())


def _unwritable(arrays: Tensors) -> Tensors:
    """The same arrays: several requests will read them at once."""
    for array in arrays.values():
        array.flags.writeable = False
    return arrays
