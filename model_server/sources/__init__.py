"""Where files come from, by the scheme of their URL.

npm:PACKAGE@VERSION/path/in/package     the npm client, with the registry and proxy that it is set up for
pypi:PACKAGE==VERSION/path/in/package   pip, likewise
https: http:                            requests; a broken download goes on where it stopped
file:                                   this machine
gs: s3: az: memory: …                   fsspec, where the driver is installed
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from model_server.failures import Stopped

SCHEMES = {
    "npm": "model_server.sources.packages:npm",
    "pypi": "model_server.sources.packages:pypi",
    "http": "model_server.sources.web:WebSource",
    "https": "model_server.sources.web:WebSource",
    "file": "model_server.sources.local:LocalSource",
}
OTHER_SCHEMES = "model_server.sources.storage:StorageSource"

_QUOTED = ("http", "https", "file")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)


class Source(Protocol):
    """One way to get files. Everything raises Stopped, with a message that names the URL."""

    def listing(self, url: str) -> Mapping[str, int | None] | None:
        """The files below the folder `url` with their sizes, by relative path; None where `url` is no folder, or where
        this kind of source cannot tell."""

    def download(self, url: str, target: Path, size: int | None) -> None:
        """Writes the file `url` to `target`, which appears only whole; `size` in bytes where it is known."""


class Sources:
    """The sources that one command uses: a package is downloaded once, however many of its files are wanted."""

    def __init__(self) -> None:
        self._scratch = TemporaryDirectory(prefix="thinlens-")
        self._opened: dict[str, Source] = {}

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def of(self, url: str) -> Source:
        """The source for `url`. Raises Stopped where it is no URL."""
        scheme = scheme_of(url)
        if scheme is None:
            raise Stopped(f"{url!r} is not a URL; expected {', '.join(SCHEMES)} or a storage scheme such as gs, s3, az")
        try:
            urlsplit(url)
        except ValueError as error:
            raise Stopped(f"{url!r} is not a URL: {error}") from error
        path = SCHEMES.get(scheme, OTHER_SCHEMES)
        if path not in self._opened:
            module, _, kind = path.partition(":")
            self._opened[path] = getattr(import_module(module), kind)(Path(self._scratch.name))
        return self._opened[path]


def scheme_of(url: str) -> str | None:
    """The scheme in lower case; None for text that has none (a single letter is a drive, not a scheme)."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else None


def join(folder: str, file: str) -> str:
    """The URL of `file` in the folder `folder`; a query string (a signature) stays at the end."""
    path, query = _path_and_query(folder)
    return f"{path.rstrip('/')}/{quote(file) if scheme_of(folder) in _QUOTED else file}{query}"


def split(url: str) -> tuple[str, str]:
    """The URL of the folder that `url` is in, and its own plain name there."""
    path, query = _path_and_query(url)
    folder, _, name = path.rpartition("/")
    return folder + query, unquote(name) if scheme_of(url) in _QUOTED else name


def _path_and_query(url: str) -> tuple[str, str]:
    """Only the web has query strings: elsewhere a question mark may be part of a name."""
    path, mark, query = url.partition("?") if scheme_of(url) in ("http", "https") else (url, "", "")
    return path, mark + query


def shown(url: str) -> str:
    """`url` for a message: without what may be secret in it, a password or a signature in the query."""
    if scheme_of(url) in ("npm", "pypi", "file"):
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}", query="", fragment=""))


def is_safe_path(file: str) -> bool:
    """Whether `file` stays inside the folder that it is relative to, and is no hidden file."""
    path = PurePosixPath(file)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and "\\" not in file
        and not any(part.startswith(".") for part in path.parts)
    )
