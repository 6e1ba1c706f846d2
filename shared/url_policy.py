"""Which URLs may be fetched: the `URL_FETCH` setting as a value, and what a public address is. Knows no network."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Literal, TypeAlias

import msgspec

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_HOST = 253

# The IANA special-purpose address registries, and what is public by number but not by use.
_NOT_PUBLIC_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's wire server: public by number, answers inside every virtual machine
        "169.254.0.0/16",  # link-local, the clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Everything else (mapped, NAT64, unique local, link-local, multicast) lies outside the one block that is handed out.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, embeds an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # 6bone, handed back
        "3fff::/20",  # documentation
    )
)
# RFC 5214, section 6.1: an interface identifier of this form embeds an IPv4 address, under any prefix.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


class UrlPolicy(msgspec.Struct, frozen=True):
    """What THINLENS_URL_FETCH says: nothing, the public internet, or only what is listed."""

    mode: Literal["off", "public", "allow-list"]
    hosts: tuple[str, ...] = ()
    """Lower-case host names; `*.example.org` stands for every name below example.org, not for itself."""
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> UrlPolicy:
        """`off`, `public`, or hosts, addresses and CIDR ranges separated by commas; ValueError names the bad entry."""
        entries = [entry.strip().lower() for entry in text.split(",")]
        if entries in (["off"], ["public"]):
            return cls("off" if entries == ["off"] else "public")
        listed = [_entry(entry) for entry in entries]
        return cls(
            "allow-list",
            hosts=tuple(entry for entry in listed if isinstance(entry, str)),
            networks=tuple(entry for entry in listed if not isinstance(entry, str)),
        )

    def may_look_up(self, host: str) -> bool:
        """Whether some address could make `host` admissible; asking DNS about any other would only tell it the name."""
        return self.mode == "public" or bool(self.networks) or self._lists(host)

    def admits(self, host: str, addresses: Collection[Address]) -> bool:
        """Whether `host` may be connected to when it resolves to `addresses`: all of them must be admissible."""
        if self.mode == "off" or not addresses:
            return False
        if self.mode == "public":
            return all(is_public(address) for address in addresses)
        return self._lists(host) or all(self._holds(address) for address in addresses)

    def _lists(self, host: str) -> bool:
        return any(host.endswith(listed[1:]) if listed[0] == "*" else host == listed for listed in self.hosts)

    def _holds(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether `address` is a plain unicast address of the public internet, with no other address inside it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address.scope_id is not None or address not in _GLOBAL_UNICAST:
        return False
    embeds_v4 = (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP
    return not embeds_v4 and not any(address in network for network in _NOT_PUBLIC_V6)


def is_host_name(text: str) -> bool:
    """Whether `text` is a lower-case ASCII host name, and nothing that a resolver would take for an address."""
    labels = text.split(".")
    return (
        len(text) <= _LONGEST_HOST
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )


def _entry(text: str) -> str | Network:
    if text in ("off", "public"):
        raise ValueError(f"{text!r} must stand alone, found it in a list")
    if is_host_name(text.removeprefix("*.")):
        return text
    try:
        return _network(text)
    except ValueError as error:
        raise ValueError(_explain(text)) from error


def _network(text: str, *, strict: bool = True) -> Network:
    if "%" in text:  # a zone: a list cannot mean one machine's interface
        raise ValueError(text)
    return ip_network(text, strict=strict)


def _explain(text: str) -> str:
    """Why `text` is no entry, with the nearest right one where a range merely has host bits set."""
    try:
        meant = _network(text, strict=False)
    except ValueError:
        expected = "off, public, or a comma-separated list of host names, *.host names, IP addresses and CIDR ranges"
        return f"{text!r} is none of {expected}"
    return f"{text!r} has host bits set, did you mean {str(meant)!r}?"
