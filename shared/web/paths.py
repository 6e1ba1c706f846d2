"""Which endpoint answers a path and a method. Written here because Werkzeug's routing, made for building URLs too,
takes longer to import and compile than all of our own web layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from werkzeug.wrappers import Response

from shared.errors import MethodNotAllowed, RouteNotFound

_PART = re.compile(r"\{(\w+)(\.\.\.)?\}")


class Endpoint(NamedTuple):
    """What answers: a function of the Exchange and of the path's own parts."""

    answer: Callable[..., Response]
    needs_key: bool = True
    for_person: bool = False
    """Whether failures, too, are HTML."""


class Found(NamedTuple):
    """A path that exists: its template, what answers each method, and its parts."""

    template: str
    endpoints: Mapping[str, Endpoint]
    arguments: dict[str, str]

    @property
    def allowed(self) -> list[str]:
        """The methods that are answered, in order; HEAD goes with GET, OPTIONS with any."""
        return sorted({*self.endpoints, "OPTIONS", *(["HEAD"] if "GET" in self.endpoints else [])})

    def endpoint(self, method: str) -> Endpoint:
        """Raises MethodNotAllowed."""
        endpoint = self.endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allowed = self.allowed
            raise MethodNotAllowed(f"{method} is not possible here; {', '.join(allowed)} is", allowed=allowed)
        return endpoint


class Paths:
    """Templates such as `/models/{name}/predict`, where `{name}` is one step of the path and `{name...}` all the rest.
    One without parts wins over one with them."""

    def __init__(self, table: Mapping[str, Mapping[str, Endpoint]]) -> None:
        self.table = {_without_slash(template): endpoints for template, endpoints in table.items()}
        self._patterns = [(_pattern(template), template) for template in table if "{" in template]

    def find(self, path: str) -> Found:
        """The endpoints of a path as WSGI has it (percent-decoded, as Latin-1). Raises RouteNotFound."""
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")
        path = _without_slash(path)
        if path in self.table and "{" not in path:
            return Found(path, self.table[path], {})
        for pattern, template in self._patterns:
            if match := pattern.fullmatch(path):
                return Found(template, self.table[template], match.groupdict())
        raise RouteNotFound("there is no such path; /openapi.json lists them")


def _without_slash(path: str) -> str:
    """A slash at the end makes no other path."""
    return path.removesuffix("/") or "/"


def _pattern(template: str) -> re.Pattern[str]:
    literal, *parts = _PART.split(template)
    text = re.escape(literal)
    for name, rest, following in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        text += rf"(?P<{name}>{'.+' if rest else '[^/]+'}){re.escape(following)}"
    return re.compile(text)
