"""Who may call: keys, and the origins of pages."""

from __future__ import annotations

from hmac import compare_digest
from typing import Protocol

from shared.errors import Unauthorized

_BEARER = "bearer "
_METHODS = "GET, HEAD, POST, OPTIONS"
_HEADERS = "Accept, Authorization, Content-Type, X-API-Key, X-Request-Id"
_EXPOSED = "Retry-After, X-Request-Id"
_PREFLIGHT_S = "600"


class _Headers(Protocol):
    def get(self, name: str, default: str) -> str: ...


def check_key(headers: _Headers, keys: tuple[str, ...]) -> None:
    """Raises Unauthorized unless `X-API-Key` or a bearer token is one of `keys`; no keys let everyone in."""
    if not keys:
        return
    given = headers.get("X-API-Key", "")
    authorization = headers.get("Authorization", "")
    if not given and authorization[: len(_BEARER)].lower() == _BEARER:
        given = authorization[len(_BEARER) :].strip()
    sent = given.encode("latin-1", "replace")  # the bytes on the wire, as WSGI hands them over
    # Every key is compared, in time that does not tell how much of it was right.
    matches = [compare_digest(sent, key.encode("utf-8", "surrogateescape")) for key in keys]
    if not any(matches):
        what = "the key is not known" if given else "no key"
        raise Unauthorized(f"{what}: send one of the service's keys in X-API-Key or as a bearer token")


def cors_headers(origin: str | None, allowed: tuple[str, ...], *, preflight: bool) -> dict[str, str]:
    """The headers that let a page of `origin` read the reply; none where it may not."""
    if not allowed:
        return {}
    if origin is None or not ("*" in allowed or origin in allowed):
        return {"Vary": "Origin"}
    headers = {
        "Access-Control-Allow-Origin": "*" if "*" in allowed else origin,
        "Access-Control-Expose-Headers": _EXPOSED,
        "Vary": "Origin",
    }
    if preflight:
        headers |= {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _HEADERS,
            "Access-Control-Max-Age": _PREFLIGHT_S,
        }
    return headers
