"""What goes back: the form that the caller asked for, predictions as JSON, failures as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header
from werkzeug.wrappers import Response

from shared.call import Call
from shared.errors import Failure, InvalidParameter, NotAcceptable
from shared.predictions import Prediction
from shared.served import ServedModel
from shared.service import Answer
from shared.validation import show

Format = Literal["json", "png", "jpeg", "webp"]
FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}
# Of a media range (`application/json; charset=utf-8`), all but its weight: none of our forms has parameters.
_PARAMETERS = re.compile(r";\s*(?!q\s*=)[^;,]*", re.IGNORECASE)


_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_COME_BACK = (429, 503)
_RETRY_AFTER_S = 2
_LONGEST_MESSAGE, _LONGEST_FIGURE = 1000, 100


def chosen_format(parameter: object, accept: str | None, only: tuple[Format, ...] = FORMATS) -> Format:
    """The reply's form: `format` if it is given, else what Accept prefers; JSON where either leaves it open.
    Raises InvalidParameter or NotAcceptable."""
    if parameter is not None:
        for known in only:
            if parameter == known:
                return known
        raise InvalidParameter(
            f"format: expected one of {', '.join(only)}, found {show(parameter)}", parameter="format"
        )
    if not accept:
        return "json"
    accepted = parse_accept_header(_PARAMETERS.sub("", accept), MIMEAccept)
    if accepted.quality("text/html") > 0 and "text/html" in accept.lower():
        return "json"  # a browser's address bar: its list names pictures, but nobody asked for one
    media_types = [MEDIA_TYPES[known] for known in only]
    best = accepted.best_match(media_types)
    if best is None:
        raise NotAcceptable(f"Accept {show(accept)}: this is answered as {', '.join(media_types)}")
    return only[media_types.index(best)]


def as_json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, content_type=MEDIA_TYPES["json"])


def prediction_json(answer: Answer, served: ServedModel, call: Call, echo: Mapping[str, object]) -> dict[str, object]:
    """The JSON reply of /predict (and of each Vertex instance)."""
    prediction = answer.prediction
    height, width = prediction.source_hw
    timings = {name: round(stage_ms, 3) for name, stage_ms in call.stages_ms.items()}
    return {
        "model": served.name,
        "task": served.model.task,
        "backend": answer.backend,
        "image": {"width": width, "height": height},
        "predictions": prediction.predictions,
        **_beside(prediction),
        "notes": [*prediction.notes, *_stood_in(answer)],
        "timings_ms": timings | {"total": round(call.elapsed_ms, 3)},
        "cold_start": answer.cold,
        "request_id": call.request_id,
        **echo,
    }


def _beside(prediction: Prediction[Any]) -> dict[str, object]:
    """What only some replies have."""
    beside = {"render_factor": prediction.render_factor, "embedding": prediction.embedding}
    return {name: value for name, value in beside.items() if value is not None}


def _stood_in(answer: Answer) -> list[str]:
    if answer.instead_of is None:
        return []
    return [f"answered by {answer.backend} in this process: {answer.instead_of.message} ({answer.instead_of.code})"]


def failure_json(failure: Failure, request_id: str) -> dict[str, object]:
    figures = {name: _short(value, _LONGEST_FIGURE) for name, value in failure.figures.items()}
    message = _short(failure.message, _LONGEST_MESSAGE)
    return {"error": {"code": failure.code, "message": message, "request_id": request_id, **figures}}


def failure_response(failure: Failure, request_id: str, beside: Mapping[str, object] | None = None) -> Response:
    """The failure with its headers; `beside` goes into the JSON next to `error`."""
    response = as_json({**(beside or {}), **failure_json(failure, request_id)}, failure.status)
    if failure.status in _COME_BACK or failure.retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, failure.retry_after_s or _RETRY_AFTER_S))
    if failure.status == 405:
        allowed = failure.figures.get("allowed")
        response.headers["Allow"] = ", ".join(allowed) if isinstance(allowed, list) else ""
    if failure.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _short(value: object, longest: int) -> object:
    """A text may quote what the caller sent, which may be as long as a body."""
    return value[:longest] + "…" if isinstance(value, str) and len(value) > longest else value


def as_html(content: bytes) -> Response:
    response = Response()
    make_html(response, content)
    return response


def make_html(response: Response, content: bytes) -> None:
    """Puts a page in the place of the response's body; its status and other headers stay."""
    response.set_data(content)
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
