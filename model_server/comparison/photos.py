"""The pictures that conversions and backends are judged on."""

from __future__ import annotations

from pathlib import Path

from model_server.failures import Stopped

SAMPLES = Path(__file__).resolve().parent.parent.parent / "shared" / "web" / "static" / "samples"
_ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"))


def pictures(folder: Path | None) -> list[Path]:
    """The picture files in `folder`, or the page's sample photographs, by name. Raises Stopped where there are none."""
    place = folder or SAMPLES
    found = sorted(path.resolve() for path in place.iterdir() if path.suffix.lower() in _ENDINGS)
    if not found:
        raise Stopped(f"{place}: there are no pictures in it; expected files that end in {', '.join(sorted(_ENDINGS))}")
    return found
