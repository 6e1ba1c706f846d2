"""The kernel's page cache, which root can empty: what starts afterwards reads all its files from the disk."""

from __future__ import annotations

import os
from pathlib import Path

from model_server.failures import Stopped

_DROP = Path("/proc/sys/vm/drop_caches")
# Pages, and the kernel's knowledge of files and folders.
_ALL = "3"


def why_not() -> str | None:
    """Why the cache cannot be emptied here; None where it can."""
    if not _DROP.exists():
        return f"this system has no {_DROP}"
    return None if os.access(_DROP, os.W_OK) else f"emptying the page cache needs root ({_DROP})"


def empty() -> None:
    """Writes what is unwritten and empties the cache. Raises Stopped."""
    os.sync()
    try:
        _DROP.write_text(_ALL, encoding="ascii")
    except OSError as error:
        raise Stopped(f"the page cache cannot be emptied: {error}") from error
