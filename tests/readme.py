"""The parts of README.md that are made from the code: `python -m tests.readme` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from shared import settings
from shared.errors import Failure

README = Path(__file__).parent.parent / "README.md"
ABSTRACT = frozenset(("not_found", "too_large", "unsupported"))  # only their kin are ever raised


def failures() -> list[type[Failure]]:
    """Every class of failure that a caller can meet, by status."""
    found: list[type[Failure]] = []
    rest = Failure.__subclasses__()
    while rest:
        kind = rest.pop(0)
        rest = kind.__subclasses__() + rest
        if kind.code not in ABSTRACT:
            found.append(kind)
    return sorted(found, key=lambda kind: kind.status)


def errors_table() -> str:
    rows = [f"| {kind.status} | `{kind.code}` | {(kind.__doc__ or '').strip()} |" for kind in failures()]
    return "\n".join(["| status | code | |", "|---|---|---|", *rows]) + "\n"


SECTIONS = {"settings": settings.table, "errors": errors_table}


def with_sections(text: str) -> str:
    """README's text with its generated parts made anew."""
    for name, make in SECTIONS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, count = pattern.subn(lambda found, make=make: found[1] + make() + found[2], text)  # type: ignore[misc]
        assert count == 1, f"README has no one place for {name}"
    return text


if __name__ == "__main__":
    README.write_text(with_sections(README.read_text(encoding="utf-8")), encoding="utf-8")
