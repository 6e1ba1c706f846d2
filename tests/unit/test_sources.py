from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.call import Call
from shared.errors import BodyTooLarge, InvalidBase64, NoImage, UrlRefused
from shared.settings import Settings
from shared.sources import Inline, Url, from_base64, read


def call() -> Call:
    """A request's time begins when it is made: not when this file is read."""
    return Call("test", 10)


@settings(deadline=None)
@given(st.binary())
def test_every_way_to_write_base64_gives_the_bytes_back(data: bytes) -> None:
    plain, url_safe = b64encode(data).decode(), urlsafe_b64encode(data).decode()
    in_lines = "\r\n".join(plain[begin : begin + 7] for begin in range(0, len(plain), 7))
    for text in (plain, url_safe, plain.rstrip("="), url_safe.rstrip("="), in_lines, f"  {plain}\n"):
        assert from_base64(text) == data


@pytest.mark.parametrize(
    "head", ["data:image/png;base64,", "DATA:;BASE64,", "data:image/svg+xml;charset=utf-8;base64,"]
)
def test_a_data_uri_gives_its_bytes(head: str) -> None:
    assert from_base64(head + "aGVsbG8=") == b"hello"


NOT_BASE64 = [
    "a", "aGVsb===", "=aGVsbG8=", "aGVs bG8=", "aGVsbG8=x", "é", "\ud800", "####", "a\0bc",
    "data:,hello", "data:image/png", "data:image/png;base64",
]  # fmt: skip


@pytest.mark.parametrize("text", NOT_BASE64)
def test_what_is_not_base64_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InvalidBase64, match="base64"):
        from_base64(text)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_bytes_or_the_callers_fault(text: str) -> None:
    with suppress(InvalidBase64):
        from_base64(text)


def test_bytes_are_taken_as_they_are() -> None:
    assert read(Inline(b"abc"), Settings(), call()) == b"abc"


def test_no_bytes_are_no_picture() -> None:
    with pytest.raises(NoImage):
        read(Inline(b""), Settings(), call())


def test_more_bytes_than_a_body_may_have_are_too_many() -> None:
    with pytest.raises(BodyTooLarge) as raised:
        read(Inline(bytes(101)), Settings(max_body_mb=1e-4), call())
    assert raised.value.figures == {"limit": 100, "found": 101}


def test_a_url_is_not_fetched_where_fetching_is_off() -> None:
    with pytest.raises(UrlRefused):
        read(Url("http://a.example/"), Settings(url_fetch="off"), call())
