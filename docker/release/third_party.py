"""What others made that lies in a package: the list that goes with it."""

from __future__ import annotations

from collections.abc import Sequence

from docker.release.licences import EXCUSED, Licence
from docker.release.packages import PLACE
from shared.manifest import Bundle

NAME = "THIRD_PARTY.md"

_HEAD = """# What others made

Packages in `{place}`, by what their metadata says, with their licences' texts; the models; NOTICE names the rest.

| package | version | licence | texts |
|---|---|---|---|
"""
_EXCUSE = """
\\* A library of its own beside NumPy's, unchanged, that NumPy's Fortran runtime loads. Whoever has the package may put
another build of it in its place.
"""
_CREDITS = {
    "FTL": "Portions of this software are copyright © The FreeType Project (freetype.org). All rights reserved.",
    "IJG": "This software is based in part on the work of the Independent JPEG Group.",
}
"""What these licences want said where binaries are distributed."""


def third_party(licences: Sequence[Licence], bundles: Sequence[Bundle]) -> str:
    """The list, in Markdown."""
    rows = [row for licence in licences for row in _rows(licence)]
    excuse = (
        _EXCUSE if any(_is_excused(licence.name, part.name) for licence in licences for part in licence.parts) else ""
    )
    models = [
        f"| {each.model.name} | {each.model.version} | {each.model.licence} | {each.model.source} |" for each in bundles
    ]
    head = "\n| model | version | licence | source |\n|---|---|---|---|\n"
    table = [_HEAD.format(place=PLACE), *_lines(rows), excuse, *_credits(licences)]
    return "".join([*table, head if models else "", *_lines(models)])


def _credits(licences: Sequence[Licence]) -> list[str]:
    under = {word for licence in licences for part in licence.parts for word in part.licence.split()}
    return [f"\n{text}\n" for name, text in _CREDITS.items() if name in under]


def _lines(rows: Sequence[str]) -> list[str]:
    return [f"{row}\n" for row in rows]


def _rows(licence: Licence) -> list[str]:
    texts = ", ".join(f"`{text}`" for text in licence.texts[:2]) + (", …" if len(licence.texts) > 2 else "")
    own = f"| {licence.name} | {licence.version} | {licence.licence} | {texts or 'none in the package'} |"
    parts = [
        f"| {part.name}, in {licence.name} | {f'{part.version} ' if part.version else ''}"
        f"| {_marked(licence.name, part.name, part.licence)} | |"
        for part in licence.parts
    ]
    return [own, *parts]


def _marked(package: str, part: str, licence: str) -> str:
    return f"{licence} \\*" if _is_excused(package, part) else licence


def _is_excused(package: str, part: str) -> bool:
    return (package.lower(), part) in EXCUSED
