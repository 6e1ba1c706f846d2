"""The text of a release: its changelog, and what its files are for."""

from __future__ import annotations

from collections.abc import Sequence

from docker.release.variants import Build

_FILES = """### Files

| file | for | settings to make |
|---|---|---|
{rows}

`sha256sum -c --ignore-missing SHA256SUMS` checks what was downloaded. `.cdx.json` is the list of a package's parts
(CycloneDX 1.6), `.licences.md` what they are under.
"""
_CLOUDS = {"azure": "Azure Functions", "google": "Google Cloud Run"}


def notes(changelog: str, wanted: Sequence[Build], version: str) -> str:
    """Both, in Markdown."""
    return f"{changelog}\n{_FILES.format(rows=chr(10).join(_row(each, version) for each in wanted))}"


def _row(wanted: Build, version: str) -> str:
    how = f", Python {wanted.python}, packages inside" if wanted.python else ", to unzip and deploy from source"
    cloud, settings = _CLOUDS[wanted.variant.cloud], wanted.variant.settings or "none"
    return f"| `{wanted.stem(version)}.zip` | {cloud}{how} | {settings} |"
