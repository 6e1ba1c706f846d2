"""Libraries that lie inside wheels: how each is recognised, and which of them the wheels' own lists leave out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple


class Sign(NamedTuple):
    """What shows that a library is in a wheel: a `file` of its own, by the name that auditwheel gives it, or `code`,
    bytes that a binary has which the library is linked into. Groups, where there are some, are its version."""

    file: str = "(?!)"  # matches nothing
    code: bytes = b"(?!)"

    def files(self, binaries: Sequence[Path]) -> list[Path]:
        """Those of `binaries` that are the library itself."""
        return [path for path in binaries if re.match(self.file, path.name)]

    def version(self, binaries: Sequence[Path]) -> str | None:
        """Of the library, "" where the sign does not tell; None where the library is not there."""
        named = (re.match(self.file, path.name) for path in binaries)
        whole = next((".".join(found.groups()) for found in named if found), None)
        if whole is not None:
            return whole
        linked = (re.search(self.code, path.read_bytes()) for path in binaries)
        return next((b".".join(found.groups()).decode() for found in linked if found), None)


SIGNS: Mapping[str, Sign] = MappingProxyType(
    {
        "FreeType": Sign("libfreetype-"),
        # Pillow's shim loads the machine's own, where there is one.
        "FriBiDi": Sign("libfribidi-", b"Unicode Character Database version"),
        "HarfBuzz": Sign("libharfbuzz-"),
        "Little CMS 2": Sign("liblcms2-"),
        "OpenJPEG": Sign("libopenjp2-"),
        "libXau": Sign("libXau-"),
        "libavif": Sign("libavif-"),
        "libimagequant": Sign("libimagequant-", rb"imagequant_version|liq_attr_create"),
        "libjpeg / libjpeg-turbo": Sign("libjpeg-"),
        "libtiff": Sign("libtiff-"),
        "libwebp": Sign("lib(?:webp|webpdemux|webpmux|sharpyuv)-"),
        "libxcb": Sign("libxcb-"),
        # Manylinux wheels take the machine's own.
        "zlib": Sign("libz(?:-ng)?-", rb"(?:in|de)flate [0-9.]+[^\0]{0,20} Copyright"),
    }
)
"""By the names in the wheels' lists, which hold what a wheel may be built with: these count where they are seen. A
library that is not named here counts always."""

LICENCES: Mapping[str, str] = MappingProxyType({"libXau": "MIT-open-group"})
"""Where the wheels' lists tell none: as the library's COPYING, which Pillow's LICENSE holds, says."""


class Untold(NamedTuple):
    """A library that lies in wheels whose lists do not name it, by its sources' licence."""

    name: str
    licence: str
    sign: Sign


UNTOLD = (
    Untold("brotli", "MIT", Sign(r"libbrotli(?:common|dec|enc)-\w+\.so\.(\d+)\.(\d+)\.(\d+)")),
    Untold("bzip2", "bzip2-1.0.6", Sign(code=rb"(?s)\A(?=.*bzip2/libbzip2).*?(\d)\.(\d)\.(\d+), \d+-\w{3}-\d{4}\0")),
    Untold("liblzma", "0BSD", Sign(r"liblzma-\w+\.so\.(\d+)\.(\d+)\.(\d+)")),
    Untold("libpng", "libpng-2.0", Sign(r"libpng(\d)(\d)-\w+\.so\.\d+\.(\d+)")),
    Untold("zstd", "BSD-3-Clause OR GPL-2.0-only", Sign(r"libzstd-\w+\.so\.(\d+)\.(\d+)\.(\d+)")),
)
