"""Where a model server is."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

_PORTS = {"http": 80, "grpc": 80, "https": 443, "grpcs": 443}


class Place(msgspec.Struct, frozen=True):
    """`prefix` is the path that all paths of the server are below, '' or like '/models'."""

    protocol: str
    secure: bool
    host: str
    port: int
    prefix: str

    @classmethod
    def of(cls, url: str) -> Place:
        """Raises ValueError, whose words do not tell the URL: they reach callers."""
        wrong = ValueError(
            "expected http://HOST:PORT, https://…, grpc://… or grpcs://…, without user, query and fragment"
        )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise wrong from None
        plain = url.isascii() and url.isprintable() and not set(url) & set("@?#\\ ")
        if parts.scheme not in _PORTS or not host or port == 0 or not plain:
            raise wrong
        secure = parts.scheme.endswith("s")
        return cls(parts.scheme.removesuffix("s"), secure, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
