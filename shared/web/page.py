"""The page at `/`, the pages that answer its form where there is no JavaScript, and the static files they use."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from pathlib import Path
from string import Template
from typing import Any, TypeAlias

import msgspec

STATIC = Path(__file__).parent / "static"

_CSS, _SCRIPT = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
_TEXT_TYPES = {
    **dict.fromkeys(("app.css", "noscript.css", "answer.css"), _CSS),
    **dict.fromkeys(("app.js", "api.js", "dom.js", "models.js", "options.js", "camera.js", "answer.js"), _SCRIPT),
    **dict.fromkeys(("detection.js", "instances.js", "objects.js", "view.js", "masks.js"), _SCRIPT),
    **dict.fromkeys(("prompts.js", "enlarge.js"), _SCRIPT),
    "icon.svg": "image/svg+xml",
}
_SAMPLES = ("street", "astronaut", "chelsea", "coffee")
ASSETS = _TEXT_TYPES | {f"samples/{name}{size}.jpg": "image/jpeg" for name in _SAMPLES for size in ("", "-small")}
"""Every file that may be asked for, and its content type; nothing else is ever looked up on disk."""


_THRESHOLD = (
    '<p><label for="threshold">Score at least</label> '
    '<input id="threshold" type="number" name="score_threshold" value="0.5" min="0" max="1" step="any"></p>'
)
_POINTS = (
    '<p><label for="points">Points on the thing, in pixels</label> '
    '<input id="points" name="points" placeholder="[[320, 240]]"></p>'
    '<p><label for="box">or a box around it</label> <input id="box" name="box" placeholder="[10, 20, 300, 400]"></p>'
    '<p class="hint">With neither, everything is looked for.</p>'
)
_SCALE = (
    '<p><label for="scale">Times larger</label> '
    '<input id="scale" type="number" name="scale" placeholder="4" min="2" max="8"></p>'
)
_FIELDS = {
    "detection": (_THRESHOLD, "Detect"),
    "instance-segmentation": (_THRESHOLD, "Outline"),
    "promptable-segmentation": (_POINTS, "Cut out"),
    "super-resolution": (_SCALE, "Enlarge"),
}
"""Of each task, what the form without JavaScript asks for, and what its button says."""


_MARKED = "The photo, with what was found marked on it"
_ALTERNATIVES = {"super-resolution": "The enlarged photo"}


class _Found(msgspec.Struct, frozen=True):
    """What a row of the table shows, of whichever task the prediction is."""

    label: str | None = None
    score: float | None = None
    area: int | None = None
    box: tuple[float, float, float, float] | None = None


class _Larger(msgspec.Struct, frozen=True):
    """What is told of an enlarged picture."""

    width: int
    height: int
    scale: int


_Cell: TypeAlias = Callable[[_Found], str]


class _Reply(msgspec.Struct, frozen=True):
    """What the result page shows of the reply of `/predict`."""

    model: str = ""
    task: str = ""
    predictions: tuple[Any, ...] = ()
    timings_ms: dict[str, float] = {}
    cold_start: bool = False
    request_id: str = ""
    notes: tuple[str, ...] = ()


def index(task: str = "detection") -> bytes:
    """The page, as UTF-8 HTML; without JavaScript it has what `task`, the default model's, asks for."""
    fields, verb = _FIELDS.get(task, ("", "Send"))
    button = f'<button class="button primary">{verb}</button>'
    return Template((STATIC / "index.html").read_text(encoding="utf-8")).substitute(fields=fields + button).encode()


def asset(name: str) -> tuple[bytes, str] | None:
    """The bytes and the content type of one static file, None where the listing has no such name."""
    content_type = ASSETS.get(name)
    return ((STATIC / name).read_bytes(), content_type) if content_type else None


def result(picture: bytes, picture_type: str, reply: dict[str, object]) -> bytes:
    """The answer to the form without JavaScript: the drawn or enlarged picture, what was found, how long it took."""
    answer = msgspec.convert(reply, _Reply, from_attributes=True)
    title, told = _enlarged(answer) if answer.task == "super-resolution" else _objects(answer)
    origin = f"Model <code>{escape(answer.model)}</code> · request <code>{escape(answer.request_id)}</code>"
    source = f"data:{picture_type};base64,{b64encode(picture).decode('ascii')}"
    return _document(
        title,
        f'<img src="{escape(source)}" alt="{_ALTERNATIVES.get(answer.task, _MARKED)}">',
        f'<section class="card objects"><h1>{title}</h1>{told}{_notes(answer.notes)}</section>',
        _time(answer),
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


def _enlarged(answer: _Reply) -> tuple[str, str]:
    """A title, and what is told below it."""
    one = msgspec.convert(answer.predictions[0], _Larger, from_attributes=True)
    return f"{one.width} × {one.height}", f'<p class="summary">{one.scale} times as wide and as high.</p>'


def _objects(answer: _Reply) -> tuple[str, str]:
    found = msgspec.convert(answer.predictions, tuple[_Found, ...], from_attributes=True)
    thing = "mask" if answer.task == "promptable-segmentation" else "object"
    title = f"{len(found) or 'No'} {thing}{'' if len(found) == 1 else 's'}"
    return title, _table(found) if found else '<p class="summary">Nothing reached the score that was asked for.</p>'


def _table(found: tuple[_Found, ...]) -> str:
    """A row for each, without the columns that none has anything for."""
    columns = {
        head: cell for head, (has, cell) in _COLUMNS.items() if any(getattr(one, has) is not None for one in found)
    }
    rows = "".join(f"<tr>{''.join(f'<td>{cell(one)}</td>' for cell in columns.values())}</tr>" for one in found)
    heads = "".join(f'<th scope="col">{head}</th>' for head in columns)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _label(found: _Found) -> str:
    return escape(found.label or "")


def _score(found: _Found) -> str:
    return "" if found.score is None else f"{found.score:.2f}"


def _area(found: _Found) -> str:
    return "" if found.area is None else f"{found.area:,}"


def _box(found: _Found) -> str:
    return "" if found.box is None else " ".join(f"{edge:.0f}" for edge in found.box)


_COLUMNS: dict[str, tuple[str, _Cell]] = {
    "Object": ("label", _label),
    "Score": ("score", _score),
    "Area px": ("area", _area),
    "Box x₁ y₁ x₂ y₂": ("box", _box),
}


def _notes(notes: tuple[str, ...]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>' if notes else ""


def _time(found: _Reply) -> str:
    cold = '<span class="mark">cold start</span>' if found.cold_start else ""
    stages = "".join(f"<div><dt>{escape(k)}</dt><dd>{ms:.1f} ms</dd></div>" for k, ms in found.timings_ms.items())
    return f'<section class="card time"><h2>Time {cold}</h2><dl>{stages}</dl></section>'
