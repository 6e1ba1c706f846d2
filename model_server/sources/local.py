"""`file:` — this machine's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from model_server.failures import Stopped
from model_server.sources.copying import copy_stream


class LocalSource:
    """See Source."""

    def __init__(self, scratch: Path) -> None:
        pass

    def listing(self, url: str) -> Mapping[str, int | None] | None:
        folder = _path(url)
        if not folder.is_dir():
            return None
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}

    def download(self, url: str, target: Path, size: int | None) -> None:
        path = _path(url)
        if path.is_dir():
            raise Stopped(f"{url} is a folder, expected a file")
        try:
            with path.open("rb") as content:
                copy_stream(content, target, size if size is not None else path.stat().st_size)
        except FileNotFoundError as error:
            raise Stopped(f"{url}: there is no such file") from error


def _path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise Stopped(f"{url}: expected file:///path, found the host {parts.netloc!r}")
    return Path(url2pathname(parts.path))
