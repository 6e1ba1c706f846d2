"""The libraries inside a package's wheel: as its texts name them, as its lists do (CycloneDX, by PEP 770), as seen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name

from docker.release.bundled import LICENCES, SIGNS, UNTOLD
from model_server.failures import Stopped

# How NumPy's and SciPy's wheels list the libraries that lie beside their own.
_IN_TEXT = re.compile(
    r"^Name: (?P<name>.+)\nFiles: (?P<files>.+)\nDescription: .+\nAvailability: .+\nLicense: (?P<licence>.+)$",
    re.MULTILINE,
)


class Part(NamedTuple):
    """A library inside a package's wheel that has a licence of its own; what is not told is empty. `files` are those
    that it has for itself, seen from site-packages."""

    name: str
    licence: str
    version: str = ""
    purl: str = ""
    files: tuple[str, ...] = ()


def read_parts(package: Distribution, site: Path, texts: Sequence[str]) -> tuple[Part, ...]:
    """The parts of `package`, installed in the folder `site`, that are there. Raises Stopped for a list that is not
    CycloneDX, a part without a licence, and a library that nothing names."""
    there = [PurePosixPath(path) for path in package.files or () if (site / path).is_file()]
    binaries = [site / path for path in there if ".so" in path.suffixes]
    lists = [site / path for path in there if path.parent.name == "sboms"]
    found: dict[str, Part] = {}
    for part in (
        *(part for text in texts for part in _in_text(site / text, site)),
        *(part for path in lists for part in _in_list(path, package, binaries, site)),
        *_untold(binaries, site),
    ):
        found.setdefault(part.name, part)
    _check_named(package, binaries, site, tuple(found.values()))
    return tuple(found.values())


def _in_text(text: Path, site: Path) -> Iterator[Part]:
    for found in _IN_TEXT.finditer(text.read_text(encoding="utf-8", errors="replace")):
        files = _seen(list(site.glob(f"{found['files']}*")), site)
        if files:
            yield Part(found["name"], found["licence"].strip(), files=files)


def _in_list(path: Path, package: Distribution, binaries: Sequence[Path], site: Path) -> Iterator[Part]:
    """What the list at `path` names and is there, less the package itself and what only builds it."""
    listed = json.loads(path.read_bytes())
    if listed.get("bomFormat") != "CycloneDX":
        raise Stopped(f"{package.name} {package.version}: {path.name} is not CycloneDX")
    own = f"pkg:pypi/{canonicalize_name(package.name)}@"
    for component in listed.get("components", ()):
        name, purl = component["name"], component.get("purl", "")
        sign = SIGNS.get(name)
        excluded = component.get("scope") == "excluded" or purl.startswith(own)
        if not excluded and (sign is None or sign.version(binaries) is not None):
            files = _seen(sign.files(binaries), site) if sign else ()
            yield Part(name, _licence(component, package), component.get("version", ""), purl, files)


def _licence(component: Mapping[str, Any], package: Distribution) -> str:
    """All that are told, together."""
    told = [
        each["expression"] if "expression" in each else each["license"].get("id") or each["license"]["name"]
        for each in component.get("licenses", ())
    ]
    licence = " AND ".join(told) or LICENCES.get(component["name"])
    if licence is None:
        raise Stopped(f"{package.name} {package.version}: its list tells no licence of {component['name']}")
    return licence


def _untold(binaries: Sequence[Path], site: Path) -> Iterator[Part]:
    for name, licence, sign in UNTOLD:
        version = sign.version(binaries)
        if version is not None:
            yield Part(name, licence, version, files=_seen(sign.files(binaries), site))


def _seen(paths: Sequence[Path], site: Path) -> tuple[str, ...]:
    return tuple(sorted(path.relative_to(site).as_posix() for path in paths))


def _check_named(package: Distribution, binaries: Sequence[Path], site: Path, parts: Sequence[Part]) -> None:
    """Each library that auditwheel has put beside the package's modules belongs to a part."""
    beside = {file for file in _seen(binaries, site) if PurePosixPath(file).parent.name.endswith(".libs")}
    unnamed = beside - {file for part in parts for file in part.files}
    if unnamed:
        files = ", ".join(sorted(unnamed))
        raise Stopped(f"{package.name} {package.version}: nothing tells what {files} is; expected it in bundled.py")
