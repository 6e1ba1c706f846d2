"""A picture's URL into bytes, without becoming anybody's way into the network behind this service.

Every hop of a fetch passes the same gates: the text of the URL (`url_syntax`), the policy for every address of its
host at the moment of connecting (`url_policy`, `url_connections`), one deadline for all hops together, and a cap on
the bytes. Imported only when a URL has to be fetched, because requests takes long to import.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPException

import requests
import urllib3

from shared import __version__
from shared.errors import BodyTooLarge, UrlFailed, UrlRefused
from shared.url_connections import GuardedAdapter, Watch, dial
from shared.url_policy import UrlPolicy
from shared.url_syntax import Target, parse_redirect, parse_url

MAX_REDIRECTS = 5
_PIECE_BYTES = 4 * 1024  # a piece is handed over when it is whole; the first one shows that the server means it
_HEADERS = {
    "User-Agent": f"thinlens/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
# Some servers compress regardless. One layer is undone, under the cap; several are a bomb, not a picture.
_CONTENT_CODINGS = ("", "identity", "gzip", "x-gzip", "deflate")


class Redirect(str):
    """The Location of a reply, as its server wrote it."""


def fetch(url: str, policy: UrlPolicy, *, max_bytes: int, timeout_s: float) -> bytes:
    """The body at `url`, at most `max_bytes` of it, within `timeout_s` from now whatever the servers do.

    Raises UrlRefused, UrlUnresolved, UrlFailed, UrlTimeout or BodyTooLarge, and nothing else.
    """
    if policy.mode == "off":
        raise UrlRefused("this service does not fetch pictures from URLs; send the picture itself")
    target = parse_url(url)
    with Watch(timeout_s) as watch:
        for _ in range(MAX_REDIRECTS + 1):
            answer = _visit(target, policy, watch, max_bytes)
            if not isinstance(answer, Redirect):
                return answer
            target = parse_redirect(target, answer)
    raise UrlFailed(f"the URL redirects more than {MAX_REDIRECTS} times", limit=MAX_REDIRECTS)


def _visit(target: Target, policy: UrlPolicy, watch: Watch, max_bytes: int) -> bytes | Redirect:
    guarded = partial(dial, policy=policy, watch=watch, subject=target.subject)
    with _translated(watch), closing(GuardedAdapter(guarded)) as adapter:
        watch.check()
        request = requests.Request("GET", target.url, headers=_HEADERS).prepare()
        with closing(adapter.send(request, stream=True, timeout=watch.left_s)) as response:
            if response.is_redirect:
                # Header bytes arrive as Latin-1; a Location that is not ASCII is UTF-8 in practice.
                return Redirect(response.headers["Location"].encode("latin-1").decode("utf-8"))
            if response.status_code != 200:
                raise UrlFailed(
                    f"the URL answered with status {response.status_code}, expected 200",
                    upstream_status=response.status_code,
                )
            return _body(response, max_bytes, watch)


def _body(response: requests.Response, max_bytes: int, watch: Watch) -> bytes:
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in _CONTENT_CODINGS:
        raise UrlFailed("the URL delivers a body in an encoding that was not asked for")
    announced: int | None = response.raw.length_remaining
    if announced is not None and announced > max_bytes:
        raise _too_large(max_bytes, found=announced)
    body = io.BytesIO()
    for piece in response.iter_content(_PIECE_BYTES):
        if body.tell() + len(piece) > max_bytes:
            raise _too_large(max_bytes)
        body.write(piece)
        watch.begun()
    return body.getvalue()


def _too_large(max_bytes: int, **found: int) -> BodyTooLarge:
    return BodyTooLarge("the URL delivers more bytes than this service takes", limit=max_bytes, **found)


@contextmanager
def _translated(watch: Watch) -> Iterator[None]:
    """Errors of the libraries as our own. Once the watch has shut a connection, every other outcome, a body that ends
    early and a header that is cut included, is only its echo: the time was up."""
    try:
        yield
        watch.check()
    except UrlFailed:
        watch.check()
        raise
    except requests.exceptions.SSLError as error:
        watch.check()
        raise UrlFailed(
            "the URL's server cannot be trusted over TLS: it does not speak it, or its certificate is not signed by a "
            "known authority, expired, or for another name"
        ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
        watch.check()
        raise UrlFailed("the URL's server broke off or sent a broken reply") from error
