"""The text of a URL into the one place that it names, or a refusal. Stricter than any client: what two parsers
could read differently is refused, not repaired."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import urljoin, urlsplit

import msgspec

from shared.errors import UrlRefused
from shared.url_policy import is_host_name

_LONGEST_URL = 8192
_LONGEST_HOST = 255
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:@]+))(?::(?P<port>[0-9]{0,5}))?")


class Target(msgspec.Struct, frozen=True):
    """A URL that can be read in one way only: `host` is lower case, ASCII, without brackets or trailing dot."""

    scheme: str
    host: str
    url: str
    subject: str
    """How a message speaks of it."""


def parse_url(url: str, subject: str = "the URL") -> Target:
    """The place that `url` names; raises UrlRefused that says what is wrong with it."""
    _check_characters(url, subject)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UrlRefused(f"{subject} is malformed") from error
    if parts.scheme not in ("http", "https"):
        raise UrlRefused(f"{subject} does not begin with http:// or https://")
    if "@" in parts.netloc:
        raise UrlRefused(f"{subject} holds a user name or password; give a URL without them")
    match = _AUTHORITY.fullmatch(parts.netloc)
    if not match:
        raise UrlRefused(f"{subject} is malformed: after {parts.scheme}:// a host and perhaps :port are expected")
    host = _ipv6(match["v6"], subject) if match["v6"] else _host(match["name"], subject)
    authority = (f"[{host}]" if match["v6"] else host) + _port(match["port"], subject)
    # Without the fragment, which is never sent.
    place = f"{parts.scheme}://{authority}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, place, subject)


def parse_redirect(target: Target, location: str) -> Target:
    """Where `target` sends us with a Location of `location`, absolute or relative. From https to http is refused: the
    caller asked for a picture that nobody on the way can read or replace."""
    subject = "a redirect of the URL"
    _check_characters(location, subject)
    try:
        # Only what is plainly relative: urljoin would take the host of the page for one missing in "http:/x".
        url = location if _SCHEME.match(location) else urljoin(target.url, location)
    except ValueError as error:
        raise UrlRefused(f"{subject} is malformed") from error
    found = parse_url(url, subject)
    if target.scheme == "https" and found.scheme == "http":
        raise UrlRefused(f"{subject} leads from https to http")
    return found


def _check_characters(url: str, subject: str) -> None:
    if len(url) > _LONGEST_URL:
        raise UrlRefused(f"{subject} is too long", limit=_LONGEST_URL, found=len(url))
    # isprintable is false for control and format characters, lone surrogates and every space but the plain one.
    if not url.isprintable() or " " in url or "\\" in url:
        raise UrlRefused(f"{subject} holds a space, a backslash or a control character; write it percent-encoded")


def _host(text: str, subject: str) -> str:
    host = text.removesuffix(".").lower()
    if not host.isascii():
        return _idn(host, subject)
    if is_host_name(host):
        return host
    try:
        # Strict: four decimal numbers without leading zeros, so no other form of inet_aton gets through.
        return str(IPv4Address(host))
    except AddressValueError as error:
        raise UrlRefused(
            f"{subject} has no usable host; write a host name, or an address in the form 192.0.2.1 or [2001:db8::1]"
        ) from error


def _idn(host: str, subject: str) -> str:
    """An international host name in its ASCII form, unmapped: what only looks like a digit or a dot is refused."""
    import idna

    try:
        encoded = idna.encode(host, strict=True).decode("ascii") if len(host) <= _LONGEST_HOST else ""
    except UnicodeError:
        encoded = ""
    if not is_host_name(encoded):
        raise UrlRefused(f"{subject} has a host name that does not exist; check it, or write it in its xn-- form")
    return encoded


def _ipv6(text: str, subject: str) -> str:
    try:
        return str(IPv6Address(text))
    except AddressValueError as error:
        raise UrlRefused(f"{subject} has no IPv6 address between its brackets") from error


def _port(text: str | None, subject: str) -> str:
    if not text:
        return ""
    if not 1 <= int(text) <= 65535:
        raise UrlRefused(f"{subject} has a port that does not exist", found=int(text))
    return f":{int(text)}"
