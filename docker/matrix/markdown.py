"""Tables for a page."""

from __future__ import annotations

from collections.abc import Sequence

_NONE = "-"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Words to the left, figures to the right."""
    right = [all(row[at][:1].isdigit() or row[at] == _NONE for row in rows) for at in range(len(head))]
    rule = ["---:" if is_right else "---" for is_right in right]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
