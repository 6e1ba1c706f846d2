from __future__ import annotations

from contextlib import nullcontext

import pytest

from shared.errors import Unauthorized
from shared.web.access import check_key, cors_headers


def test_without_keys_everyone_comes_in() -> None:
    check_key({}, ())


@pytest.mark.parametrize(
    ("headers", "right"),
    [
        ({"X-API-Key": "a"}, True),
        ({"X-API-Key": "b"}, True),
        ({"Authorization": "Bearer a"}, True),
        ({"Authorization": "BEARER a"}, True),
        ({"X-API-Key": "b", "Authorization": "Basic x"}, True),
        ({"X-API-Key": "A"}, False),
        ({"X-API-Key": "a "}, False),
        ({"X-API-Key": "c", "Authorization": "Bearer a"}, False),
        ({"Authorization": "a"}, False),
        ({"Authorization": "Bearer "}, False),
        ({}, False),
    ],
)
def test_a_key_is_one_of_those_or_none(headers: dict[str, str], right: bool) -> None:
    with nullcontext() if right else pytest.raises(Unauthorized):
        check_key(headers, ("a", "b"))


@pytest.mark.parametrize("sent", ["\xff", "\udce9", "日本", "\0"])
def test_a_key_of_any_characters_is_only_wrong(sent: str) -> None:
    with pytest.raises(Unauthorized):
        check_key({"X-API-Key": sent}, ("a", "\udcfe"))


def test_a_message_never_holds_a_key() -> None:
    with pytest.raises(Unauthorized) as raised:
        check_key({"X-API-Key": "wrong-one"}, ("right-one",))
    assert "-one" not in raised.value.message


def test_a_listed_origin_may_read() -> None:
    headers = cors_headers("https://a", ("https://a", "https://b"), preflight=False)
    assert (headers["Access-Control-Allow-Origin"], headers["Vary"]) == ("https://a", "Origin")
    assert "Retry-After" in headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Methods" not in headers


@pytest.mark.parametrize("origin", [None, "https://c", "null", "https://a.evil", "HTTPS://A"])
def test_another_origin_may_not_and_caches_are_told(origin: str | None) -> None:
    assert cors_headers(origin, ("https://a",), preflight=True) == {"Vary": "Origin"}


def test_credentials_are_never_allowed_for_any_origin() -> None:
    assert "Access-Control-Allow-Credentials" not in cors_headers("https://a", ("*",), preflight=True)


def test_without_origins_there_is_nothing_to_say() -> None:
    assert cors_headers("https://a", (), preflight=True) == {}
