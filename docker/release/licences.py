"""The licences of installed packages, as their metadata tells, and the gate: what we ship is permissive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any, NamedTuple

from license_expression import ExpressionError, get_spdx_licensing  # type: ignore[import-untyped]

from docker.release.parts import Part, read_parts
from model_server.failures import Stopped

ALLOWED = frozenset(
    (
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Open-MPI", "CC0-1.0", "FTL", "HPND"),
        *("IJG", "ISC", "MIT", "MIT-CMU", "MIT-open-group", "PSF-2.0", "Python-2.0", "Unlicense", "X11", "Zlib"),
        *("bzip2-1.0.6", "libpng-2.0", "libtiff", "LicenseRef-BSD"),
        "MPL-2.0",  # by file: certifi's certificates, unchanged
        "GPL-3.0-or-later WITH GCC-exception-3.1",  # the exception lets any program be built on GCC's runtime
    )
)
"""SPDX identifiers. LicenseRef-BSD is for packages that say BSD and not which."""

EXCUSED = {("numpy", "libquadmath")}
"""Parts of packages that may be under another licence: LGPL-2.1, a library of its own in NumPy's wheel, unchanged, that
NumPy's Fortran runtime loads; its users may replace the file."""

_OWN = "LicenseRef-"
_CLASSIFIER = "License :: OSI Approved :: "
_SPOKEN = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "LicenseRef-BSD",
    "bsd license": "LicenseRef-BSD",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
}
_TEXT = re.compile(r"(licen[cs]e|copying|notice|third.?party.?notices).*(?<!\.py)", re.IGNORECASE)
_spdx = get_spdx_licensing()


class Licence(NamedTuple):
    """What a package is under: `licence` as an SPDX expression, and where the texts lie, seen from site-packages."""

    name: str
    version: str
    licence: str
    parts: tuple[Part, ...]
    texts: tuple[str, ...]


def read_licences(site: Path) -> list[Licence]:
    """Of every package in the folder `site`, by name. Raises Stopped for one whose metadata does not tell."""
    return sorted((_licence(info, site) for info in site.glob("*.dist-info")), key=lambda each: each.name.lower())


def check_permissive(licences: Sequence[Licence]) -> None:
    """Raises Stopped with every package, or part of one, that is under another licence than ALLOWED ones."""
    problems = [f"{each.name} {each.version} is under {each.licence}" for each in licences if not allows(each.licence)]
    problems += [
        f"{part.name}, in {each.name} {each.version}, is under {part.licence}"
        for each in licences
        for part in each.parts
        if not allows(part.licence) and (each.name.lower(), part.name) not in EXCUSED
    ]
    if problems:
        raise Stopped(f"not to be shipped: {'; '.join(problems)}; expected {', '.join(sorted(ALLOWED))}")


def allows(expression: str) -> bool:
    """Whether a package under the SPDX `expression` may be shipped: of several licences to choose from one has to be
    ALLOWED, of those that hold together each."""
    said = _spoken(expression)
    return said is not None and _allows(_spdx.parse(said))


def _allows(parsed: Any) -> bool:
    operator = getattr(parsed, "operator", "").strip()
    if operator == "OR":
        return any(map(_allows, parsed.args))
    if operator == "AND":
        return all(map(_allows, parsed.args))
    return str(parsed) in ALLOWED


def _licence(info: Path, site: Path) -> Licence:
    package = Distribution.at(info)
    texts = tuple(sorted(path.as_posix() for path in package.files or [] if _TEXT.fullmatch(path.name)))
    parts = tuple(
        part._replace(licence=_spoken(part.licence) or part.licence) for part in read_parts(package, site, texts)
    )
    return Licence(package.name, package.version, _told(package), parts, texts)


def _told(package: Distribution) -> str:
    """The expression that the metadata gives, in the newer way or one of the two older ones."""
    metadata = package.metadata
    fields = [metadata[name] for name in ("License-Expression", "License") if name in metadata]
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith(_CLASSIFIER)]
    for found in (*map(_spoken, fields), _together([line.removeprefix(_CLASSIFIER) for line in classifiers])):
        if found is not None:
            return found
    said = [text.partition("\n")[0] for text in (*fields, *classifiers)]
    raise Stopped(f"{package.name} {package.version}: its metadata does not tell its licence; found {said}")


def _together(texts: Sequence[str]) -> str | None:
    """All of them, which is the strictest reading; None where one is not known, or there is none."""
    spoken = sorted({_spoken(text) or "" for text in texts})
    return " AND ".join(spoken) if spoken and all(spoken) else None


def _spoken(text: str) -> str | None:
    """An SPDX expression in the words of `text`; None where they are not known."""
    said = _SPOKEN.get(text.strip().lower(), text.strip())
    try:
        unknown = _spdx.unknown_license_symbols(said)
    except (ExpressionError, TypeError, ValueError):
        return None
    if any(not symbol.key.startswith(_OWN) for symbol in unknown):
        return None
    return f"{_spdx.parse(said)}"
