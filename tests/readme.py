"""The parts of README.md that are made from the code: `python -m tests.readme` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from shared import errors, settings
from shared.parameters import DetectionParameters, EnlargeParameters, InstanceParameters, PromptableParameters

README = Path(__file__).parent.parent / "README.md"


def errors_table() -> str:
    rows = [f"| {kind.status} | `{kind.code}` | {(kind.__doc__ or '').strip()} |" for kind in errors.kinds()]
    return "\n".join(["| status | code | |", "|---|---|---|", *rows]) + "\n"


def parameters_table(kind: type[msgspec.Struct], skipped: tuple[str, ...] = ("render_factor",)) -> str:
    """The parameters of a task, but for some that are told elsewhere."""
    _, components = msgspec.json.schema_components([kind])
    described = components[kind.__name__]["properties"]
    rows = [f"| `{name}` | {one['description']} |" for name, one in described.items() if name not in skipped]
    return "\n".join(["| parameter | meaning |", "|---|---|", *rows]) + "\n"


SECTIONS = {
    "settings": settings.table(),
    "errors": errors_table(),
    "detection": parameters_table(DetectionParameters),
    "instances": parameters_table(InstanceParameters, DetectionParameters.__struct_fields__),
    "prompts": parameters_table(PromptableParameters),
    "enlarging": parameters_table(EnlargeParameters),
}


def with_sections(text: str) -> str:
    """README's text with its generated parts made anew."""
    for name, section in SECTIONS.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        parts = re.split(re.escape(begin) + ".*?" + re.escape(end), text, flags=re.DOTALL)
        assert len(parts) == 2, f"README has no one place for {name}"
        text = parts[0] + begin + section + end + parts[1]
    return text


if __name__ == "__main__":
    README.write_text(with_sections(README.read_text(encoding="utf-8")), encoding="utf-8")
