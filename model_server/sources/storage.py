"""Cloud storage and everything else that fsspec has a driver for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_server.failures import Stopped
from model_server.sources import SCHEMES, scheme_of, shown
from model_server.sources.copying import copy_stream


class StorageSource:
    """See Source."""

    def __init__(self, scratch: Path) -> None:
        pass

    def listing(self, url: str) -> Mapping[str, int | None] | None:
        with _told(url):
            system, path = _opened(url)
            if system.isfile(path):
                return None
            prefix = path.rstrip("/") + "/"
            found = system.find(path, detail=True)
            return {name.removeprefix(prefix): info.get("size") for name, info in found.items()}

    def download(self, url: str, target: Path, size: int | None) -> None:
        with _told(url):
            system, path = _opened(url)
            if not system.isfile(path):
                raise Stopped(f"{shown(url)}: there is no such file")
            with system.open(path, "rb") as content:
                copy_stream(content, target, size if size is not None else system.size(path))


def _opened(url: str) -> tuple[Any, str]:
    """The fsspec file system of `url` and the path in it."""
    try:
        import fsspec
    except ImportError as error:
        raise Stopped(f"{scheme_of(url)}: URLs need fsspec: pip install fsspec and the driver") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise Stopped(f"{scheme_of(url)}: URLs need a driver that is not installed: {error}") from error
    except ValueError as error:
        known = ", ".join([*SCHEMES, "gs", "s3", "az"])
        raise Stopped(f"{shown(url)}: unknown scheme {scheme_of(url)!r}; expected one of {known}") from error
    return system, path


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Every driver raises what its own libraries raise; here it becomes one sentence."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise Stopped(f"{shown(url)}: {type(error).__name__}{f': {reason[0]}' if reason else ''}") from error
