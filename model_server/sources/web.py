"""`https:` and `http:` — a download that broke off goes on where it stopped, if the file is still the same one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import requests

from model_server.failures import Stopped
from model_server.progress import progress_bar
from model_server.sources import shown
from model_server.sources.copying import partial_of

_TIMEOUTS_S = (10, 60)
# What has come of an unfinished chunk is lost when the connection breaks off.
_CHUNK = 1 << 16
_ATTEMPTS = 4
_PAUSE_S = 0.25
_PASSING = {408, 429, 500, 502, 503, 504}
_BROKEN_OFF = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class WebSource:
    """See Source. Proxies of the environment are honoured: this is a command that a person runs."""

    def __init__(self, scratch: Path) -> None:
        pass

    def listing(self, url: str) -> Mapping[str, int | None] | None:
        """The web has no folders: None, whatever `url` is."""

    def download(self, url: str, target: Path, size: int | None) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _attempt(url, target, size)
            except (*_BROKEN_OFF, _Again) as error:
                if attempt == _ATTEMPTS:
                    raise Stopped(f"{shown(url)}: {_plainly(error)}; run the command again to go on") from error
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            except (requests.RequestException, UnicodeError) as error:
                raise Stopped(f"{shown(url)}: {_plainly(error)}") from error
            else:
                return


class _Again(Exception):
    """The server's answer will not do, but another one may."""


def _attempt(url: str, target: Path, size: int | None) -> None:
    """One request: the rest of what lies in the partial file, or the whole file where the server will not resume."""
    partial = _Partial(target)
    offset, validator = partial.resumable(url)
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUTS_S) as response:
        status = response.status_code
        if status == 416 or (status == 206 and not _begins_at(response, offset)):
            partial.discard()
            raise _Again("the server would not resume")
        if status in _PASSING:
            raise _Again(f"the server answered {status} {response.reason}")
        if status not in (200, 206):
            raise Stopped(f"{shown(url)}: the server answered {status} {response.reason}")
        done = offset if status == 206 else 0
        if not done:
            partial.begin(url, response)
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() else size
        if size is not None and total != size:
            raise Stopped(f"{shown(url)}: expected {size} bytes, the server announces {total}")
        with partial.path.open("ab") as file, progress_bar(target.name, total, done) as bar:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    partial.finish()


def _begins_at(response: requests.Response, offset: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _plainly(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate was not accepted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "cannot reach the server"
    return str(error) or type(error).__name__


@dataclass(frozen=True, slots=True)
class _Partial:
    """What there is of a file, and beside it which file that was: its URL and the validator that the server gave."""

    target: Path

    @property
    def path(self) -> Path:
        return partial_of(self.target)

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def resumable(self, url: str) -> tuple[int, str]:
        """How many bytes of `url` are here, and the validator for If-Range; 0 where they cannot be relied on."""
        try:
            note = json.loads(self._note.read_bytes())
            size = self.path.stat().st_size
        except (FileNotFoundError, ValueError):
            return 0, ""
        return (size, note["validator"]) if note["url"] == shown(url) and note["validator"] else (0, "")

    def begin(self, url: str, response: requests.Response) -> None:
        self.discard()
        etag = response.headers.get("ETag", "")
        # A weak validator says that two files mean the same, not that their bytes are the same (RFC 9110, 13.1.5).
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        self._note.write_text(json.dumps({"url": shown(url), "validator": validator}), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        self._note.unlink(missing_ok=True)
        self.path.replace(self.target)
