"""What a backend costs before it runs: the packages that it needs and the weights in its file.

Looked at by the interpreter that runs the backend, in a process of .answering that measures nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class File(msgspec.Struct, frozen=True):
    """The file of one network, and the signature to look at where it is a SavedModel."""

    path: str
    signature: str


class Weigh(msgspec.Struct, frozen=True, tag=True):
    """Weigh packages by group, each given as requirements (see .installed), and count the numbers in the
    files that `backend` runs."""

    groups: Mapping[str, tuple[str, ...]]
    backend: str = ""
    files: tuple[File, ...] = ()


class Package(msgspec.Struct, frozen=True):
    """An installed distribution; `size_bytes` is what its files take, without bytecode."""

    name: str
    version: str
    size_bytes: int


class Weighed(msgspec.Struct, frozen=True, tag=True):
    """Packages by group, each in the first group that needs it, by name; what is needed and not here; how many numbers
    the files hold, or why that cannot be told."""

    python: str
    packages: Mapping[str, tuple[Package, ...]]
    missing: tuple[str, ...] = ()
    parameters: int | None = None
    uncounted: str = ""


def weighed(request: Weigh) -> Weighed:
    """What the request asks for."""
    # Here, for a process that is asked for its memory must not have them.
    import platform

    from model_server.comparison.installed import packages
    from model_server.comparison.weights import parameters

    found, missing = packages(request.groups)
    count, why = parameters(request.backend, request.files)
    return Weighed(platform.python_version(), found, missing, count, why)
