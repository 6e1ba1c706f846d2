"""Where a picture's bytes come from when they are not simply the body: base64, data URI, URL."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from shared.errors import BodyTooLarge, InvalidBase64, NoImage

if TYPE_CHECKING:
    from shared.call import Call
    from shared.settings import Settings

_DATA_URI = "data:"
_URL_SAFE = str.maketrans("-_", "+/", "\r\n")


class Inline(msgspec.Struct, frozen=True):
    """The picture's own bytes."""

    data: bytes


class Url(msgspec.Struct, frozen=True):
    """Where the picture can be fetched."""

    url: str


class Unsent(msgspec.Struct, frozen=True):
    """No picture: what an encoder has made of it is among the parameters."""


Source = Inline | Url | Unsent


def read(source: Source, settings: Settings, call: Call) -> bytes:
    """The picture's encoded bytes, b"" where none was to be sent. Raises NoImage, BodyTooLarge, and for a URL what
    shared.urls.fetch raises."""
    if isinstance(source, Unsent):
        return b""
    if isinstance(source, Url):
        # `requests` costs a fifth of a second to import, and most pictures come in the body.
        from shared.url_policy import UrlPolicy
        from shared.urls import fetch

        # Pieces, and what they are put together to.
        with call.stage("fetch"), _room(call, 2 * settings.max_body_bytes):
            data = fetch(
                source.url,
                UrlPolicy.parse(settings.url_fetch),
                max_bytes=settings.max_body_bytes,
                timeout_s=min(settings.url_timeout_s, call.remaining_s),
            )
    else:
        data = source.data
    if not data:
        raise NoImage("the picture is empty")
    if len(data) > settings.max_body_bytes:
        raise BodyTooLarge(
            f"the picture has {len(data)} bytes; the limit is {settings.max_body_bytes}",
            limit=settings.max_body_bytes,
            found=len(data),
        )
    return data


@contextmanager
def _room(call: Call, needed_bytes: int) -> Iterator[None]:
    if call.share is not None:
        call.share.hold(call.share.held_bytes + needed_bytes, call)
    yield
    if call.share is not None:
        call.share.keep(call.share.held_bytes - needed_bytes // 2)


def from_base64(text: str) -> bytes:
    """The bytes of plain base64 (standard or URL-safe alphabet, padded or not, lines broken or not) or of a data URI.
    Raises InvalidBase64."""
    if text[: len(_DATA_URI)].lower() == _DATA_URI:
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidBase64("the data URI is not of the form data:image/...;base64,...")
    try:
        raw = text.translate(_URL_SAFE).strip().encode("ascii")
        return binascii.a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise InvalidBase64(f"the picture is not base64: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error).lower() if isinstance(error, binascii.Error) else "it has a character outside ASCII"
