"""An HTTP request -> the pictures and parameters that it carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import msgspec
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from shared.call import Call
from shared.errors import (
    BadRequest,
    Failure,
    InvalidEnvelope,
    InvalidJson,
    InvalidMultipart,
    InvalidParameter,
    NoImage,
    SeveralImages,
    UnsupportedMediaType,
)
from shared.sources import Inline, Source, Unsent, Url, from_base64
from shared.validation import parse_json, show
from shared.web.body import read_body

_OF_AZURE = frozenset(("code", "clientId"))  # Azure's function keys ride in the query
ECHOED = ("image_name", "file_path")
_IMAGE_FIELDS = ("image", "image_base64", "image_url")
MOST_INSTANCES = 1000
_MOST_FORM_PARTS = 100
# How often, measured, a body is in memory while its picture is taken out.
_PUTTING_TOGETHER, _PARSING_MULTIPART, _PARSING_JSON = 2, 3, 4


class Given(msgspec.Struct, frozen=True):
    """One picture with the parameters that came with it, by name; text where it came from a query or form."""

    source: Source
    format: object
    parameters: dict[str, object]
    echo: dict[str, str]


class Envelope(msgspec.Struct, frozen=True):
    """Vertex AI's form of a request: many pictures, each one good or the reason why it is not."""

    instances: tuple[Given | Failure, ...]


def read(environ: dict[str, Any], query: Iterable[tuple[str, str]], max_bytes: int, call: Call) -> Given | Envelope:
    """What the request asks for. Raises BadRequest's kin, UnsupportedMediaType and what read_body raises."""
    fields = _once([(name, value) for name, value in query if name not in _OF_AZURE], "query")
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return _one([], fields)
    kind, options = parse_options_header(environ.get("CONTENT_TYPE", ""))
    kind = kind.lower()
    if kind == "multipart/form-data":
        with _body(environ, max_bytes, call, _PARSING_MULTIPART) as body:
            return _from_multipart(body, kind, options, fields)
    if kind == "application/json":
        with _body(environ, max_bytes, call, _PARSING_JSON) as body:
            return _from_json(body, fields)
    if kind in ("", "application/octet-stream") or kind.startswith("image/"):
        with _body(environ, max_bytes, call, _PUTTING_TOGETHER) as body:
            return _one([Inline(body)] if body else [], fields)
    hint = " (with curl: -F image=@photo.jpg)" if kind == "application/x-www-form-urlencoded" else ""
    raise UnsupportedMediaType(
        f"Content-Type {show(kind)}: expected image/*, application/octet-stream, multipart/form-data or "
        f"application/json{hint}"
    )


@contextmanager
def _body(environ: dict[str, Any], max_bytes: int, call: Call, copies: int) -> Iterator[bytes]:
    """The body; at the end the call keeps memory for one of its `copies`."""
    yield read_body(environ, max_bytes, call, copies)
    if call.share is not None:
        call.share.keep(call.share.held_bytes // copies)


def _from_multipart(body: bytes, kind: str, options: dict[str, str], fields: dict[str, object]) -> Given:
    if not options.get("boundary"):
        raise InvalidMultipart("Content-Type multipart/form-data has no boundary")
    parser = FormDataParser(_in_memory, max_form_memory_size=len(body), max_form_parts=_MOST_FORM_PARTS, silent=False)
    try:
        _, form, files = parser.parse(BytesIO(body), kind, len(body), options)
    except (ValueError, HTTPException) as error:
        raise InvalidMultipart(f"the multipart body cannot be read: {_sentence(error)}") from error
    for name in files:
        if name != "image":
            raise InvalidParameter(f"multipart file {show(name)}: expected the picture under 'image'", parameter=name)
    # A browser's form sends what was left empty, too.
    pictures = [(file.filename, file.read()) for file in files.getlist("image")]
    chosen: list[Source] = [Inline(data) for filename, data in pictures if filename or data]
    filled = [(name, value) for name, value in form.items(multi=True) if value]
    return _one(chosen, _joined(fields, _once(filled, "form")))


def _in_memory(*_: object, **__: object) -> BytesIO:
    """Where a part of the body goes: the body is in memory already, and a host may have no disk to write to."""
    return BytesIO()


def _from_json(body: bytes, fields: dict[str, object]) -> Given | Envelope:
    try:
        content = parse_json(body)
    except ValueError as error:
        raise InvalidJson(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidJson(f"the body: expected a JSON object, found {show(content)}")
    if "instances" in content:
        return _envelope(content, fields)
    return _one([], _joined(fields, _without_null(content)))


def _envelope(content: dict[str, object], fields: dict[str, object]) -> Envelope:
    unknown = content.keys() - {"instances", "parameters"}
    if unknown:
        raise InvalidEnvelope(f"beside 'instances' and 'parameters' there is {show(min(unknown))}")
    instances, common = content["instances"], content.get("parameters")
    if common is None:
        common = {}
    if not isinstance(common, dict):
        raise InvalidEnvelope(f"parameters: expected an object, found {show(common)}")
    if not isinstance(instances, list) or not 1 <= len(instances) <= MOST_INSTANCES:
        raise InvalidEnvelope(f"instances: expected an array of 1 to {MOST_INSTANCES}, found {show(instances)}")
    if any(field in common or field in fields for field in _IMAGE_FIELDS):
        raise InvalidEnvelope("a picture belongs in its instance, not beside 'instances'")
    common = _joined(fields, _without_null(common))
    return Envelope(tuple(_instance(instance, common) for instance in instances))


def _instance(instance: object, common: dict[str, object]) -> Given | Failure:
    try:
        if not isinstance(instance, dict):
            raise InvalidEnvelope(f"an instance: expected an object, found {show(instance)}")
        if instance.keys() == {"b64"}:  # bytes by themselves, as Vertex AI writes them
            instance = {"image_base64": instance["b64"]}
        return _one([], common | _without_null(instance))
    except BadRequest as failure:
        return failure


def _one(pictures: list[Source], fields: dict[str, object]) -> Given:
    """The one picture among `pictures` and the image fields; the other fields are parameters."""
    sources = pictures + [_source(name, fields[name]) for name in _IMAGE_FIELDS if name in fields]
    if not sources and "embedding" in fields:
        sources.append(Unsent())
    if not sources:
        raise NoImage("no picture: send it as the body, as multipart file 'image', as image_base64 or as image_url")
    if len(sources) > 1:
        raise SeveralImages(f"expected one picture, found {len(sources)}", found=len(sources))
    echo = {name: _text(name, fields[name]) for name in ECHOED if name in fields}
    skipped = (*_IMAGE_FIELDS, *ECHOED, "format")
    asked = {name: value for name, value in fields.items() if name not in skipped}
    return Given(sources[0], fields.get("format"), asked, echo)


def _source(name: str, value: object) -> Source:
    if name != "image_url" and isinstance(value, dict) and value.keys() == {"b64"}:
        value = value["b64"]  # how Vertex AI and TensorFlow Serving write bytes
    text = _text(name, value)
    return Url(text) if name == "image_url" else Inline(from_base64(text))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidParameter(f"{name}: expected text, found {show(value)}", parameter=name)
    return value


def _once(pairs: Iterable[tuple[str, str]], where: str) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise InvalidParameter(f"{name} is given twice in the {where}", parameter=name)
        fields[name] = _value(name, value)
    return fields


def _value(name: str, text: str) -> object:
    """Text of a query or form; what begins like a JSON list or object is one."""
    if name in (*_IMAGE_FIELDS, *ECHOED) or not text.startswith(("[", "{")):
        return text
    try:
        return parse_json(text.encode())
    except ValueError as error:
        raise InvalidParameter(f"{name}: {show(text)} is not JSON: {error}", parameter=name) from error


def _without_null(content: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in content.items() if value is not None}


def _joined(query: Mapping[str, object], body: Mapping[str, object]) -> dict[str, object]:
    both = query.keys() & body.keys()
    if both - set(_IMAGE_FIELDS):
        name = min(both)
        raise InvalidParameter(f"{name} is given both in the query and in the body", parameter=name)
    if both:
        raise SeveralImages("expected one picture, found one in the query and one in the body", found=2)
    return {**query, **body}


def _sentence(error: Exception) -> str:
    return (error.description if isinstance(error, HTTPException) else str(error)) or "it is malformed"
