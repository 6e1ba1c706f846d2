"""The page at `/`, the pages that answer its form where there is no JavaScript, and the static files they use."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from http import HTTPStatus
from pathlib import Path
from string import Template

import msgspec

STATIC = Path(__file__).parent / "static"

_TEXT_TYPES = {
    "app.css": "text/css; charset=utf-8",
    "noscript.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "camera.js": "text/javascript; charset=utf-8",
    "options.js": "text/javascript; charset=utf-8",
    "view.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_SAMPLES = ("street", "astronaut", "chelsea", "coffee")
ASSETS = _TEXT_TYPES | {f"samples/{name}{size}.jpg": "image/jpeg" for name in _SAMPLES for size in ("", "-small")}
"""Every file that may be asked for, and its content type; nothing else is ever looked up on disk."""


class _Found(msgspec.Struct, frozen=True):
    """What a row of the table shows, of whichever task the prediction is."""

    label: str = ""
    score: float | None = None
    box: tuple[float, float, float, float] | None = None


class _Reply(msgspec.Struct, frozen=True):
    """What the result page shows of the reply of `/predict`."""

    model: str = ""
    predictions: tuple[_Found, ...] = ()
    timings_ms: dict[str, float] = {}
    cold_start: bool = False
    request_id: str = ""
    notes: tuple[str, ...] = ()


def index() -> bytes:
    """The page, as UTF-8 HTML."""
    return (STATIC / "index.html").read_bytes()


def asset(name: str) -> tuple[bytes, str] | None:
    """The bytes and the content type of one static file, None where the listing has no such name."""
    content_type = ASSETS.get(name)
    return ((STATIC / name).read_bytes(), content_type) if content_type else None


def result(picture: bytes, picture_type: str, reply: dict[str, object]) -> bytes:
    """The answer to the form without JavaScript: the drawn picture, what was found, and how long it took."""
    found = msgspec.convert(reply, _Reply, from_attributes=True)
    count = len(found.predictions)
    title = "1 object" if count == 1 else f"{count or 'No'} objects"
    origin = f"Model <code>{escape(found.model)}</code> · request <code>{escape(found.request_id)}</code>"
    source = f"data:{picture_type};base64,{b64encode(picture).decode('ascii')}"
    return _document(
        title,
        f'<img src="{escape(source)}" alt="The photo, with what was found marked on it">',
        f'<section class="card objects"><h1>{title}</h1>{_table(found.predictions)}{_notes(found.notes)}</section>',
        _time(found),
        '<p><a class="button primary" href="./">Try another photo</a></p>',
        f'<p class="hint">{origin}</p>',
    )


def failure(status: int, code: str, message: str, request_id: str) -> bytes:
    """A failure that a person can read and act on."""
    reason = HTTPStatus(status).phrase
    return _document(
        reason,
        '<div class="notice failed" role="alert">'
        f"<h1>{reason}</h1><p><strong>{escape(message)}</strong></p>"
        f'<p class="hint">{status} · {escape(code)} · request {escape(request_id)}</p></div>',
        '<p><a class="button primary" href="./">Back to the page</a></p>',
    )


def _document(title: str, *parts: str) -> bytes:
    template = Template((STATIC / "outcome.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), content="\n".join(parts)).encode()


def _table(found: tuple[_Found, ...]) -> str:
    if not found:
        return '<p class="summary">Nothing reached the score that was asked for.</p>'
    rows = "".join(f"<tr><td>{escape(f.label)}</td><td>{_score(f)}</td><td>{_box(f)}</td></tr>" for f in found)
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Object", "Score", "Box x₁ y₁ x₂ y₂"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _score(found: _Found) -> str:
    return "" if found.score is None else f"{found.score:.2f}"


def _box(found: _Found) -> str:
    return "" if found.box is None else " ".join(f"{edge:.0f}" for edge in found.box)


def _notes(notes: tuple[str, ...]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>' if notes else ""


def _time(found: _Reply) -> str:
    cold = '<span class="mark">cold start</span>' if found.cold_start else ""
    stages = "".join(f"<div><dt>{escape(k)}</dt><dd>{ms:.1f} ms</dd></div>" for k, ms in found.timings_ms.items())
    return f'<section class="card time"><h2>Time {cold}</h2><dl>{stages}</dl></section>'
