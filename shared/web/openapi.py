"""The HTTP contract as an OpenAPI 3.1 document, from the models that are served and the one error tree."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeAlias, get_args

import msgspec

from shared import __version__, errors
from shared.errors import Failure
from shared.manifest import Profile
from shared.parameters import OLDER_NAMES
from shared.predictions import KINDS, Embedding
from shared.served import ServedModel, State
from shared.service import Service
from shared.web.exchange import REQUEST_ID
from shared.web.inputs import ECHOED, MOST_INSTANCES
from shared.web.replies import FORMATS, MEDIA_TYPES

Json: TypeAlias = dict[str, Any]

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_DEVICE = {
    "type": "object",
    "description": "`cpu`, or a GPU with its memory where the driver tells",
    "properties": {"device": _TEXT, "name": _TEXT, "total_bytes": _NUMBER, "used_bytes": _NUMBER},
    "required": ["device"],
}
_GIT_SHA = {"type": ["string", "null"], "description": "the commit that was built, where the build was told"}
_BYTES = {"type": "object", "properties": {"b64": _TEXT}, "required": ["b64"], "additionalProperties": False}
_BASE64 = {
    "description": "the picture as base64 (plain or URL-safe, padded or not) or as a data URI",
    "anyOf": [{"type": "string", "contentEncoding": "base64"}, _BYTES],
}
_URL = {"type": "string", "format": "uri", "description": "where the picture can be fetched, over http or https"}
_PICTURE_FIELDS = {"image_base64": _BASE64, "image": _BASE64 | {"description": "another name of `image_base64`"}}
_ECHOED = {name: {"type": "string", "description": "comes back in the reply"} for name in ECHOED}
_FORMAT = {"type": "string", "enum": list(FORMATS), "description": "the form of the reply; wins over Accept"}
_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "names the request in the reply and in the log; one is made where none is given",
    "schema": {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"},
}


def document(service: Service) -> dict[str, object]:
    """The routes of this process, with the parameters of the models that it serves."""
    keys = bool(service.settings.api_keys)
    schemes = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Thinlens", "version": __version__, "description": "A picture in, what is on it out."},
        "servers": [{"url": "/"}],
        "paths": _paths(service),
        "components": {
            "schemas": _schemas(service),
            "responses": {f"{status}": _failed(status) for status in _statuses()},
            "headers": {"X-Request-Id": {"schema": _TEXT}, "Retry-After": {"schema": {"type": "integer"}}},
            "parameters": {"X-Request-Id": _REQUEST_ID},
        }
        | ({"securitySchemes": schemes} if keys else {}),
        **({"security": [{name: []} for name in schemes]} if keys else {}),
    }


def _paths(service: Service) -> Json:
    settings = service.settings
    default = None if service.default is None else service.models[service.default]
    named = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": list(service.models)}}
    file = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
    html = _content("text/html")
    form = {"content": {"multipart/form-data": _multipart(_parameters(default))}, "required": True}
    paths: Json = {
        "/": {
            "get": _operation("page", "The page", html, [], open_to_all=True),
            "post": _operation("form", "The page's form", html, [])
            | {"responses": {"200": _reply("the page", html), "default": _reply("what went wrong, in words", html)}}
            | {"requestBody": form},
        },
        "/static/{name}": {
            "parameters": [file],
            "get": _asset(),
        },
        "/health": {"get": _reported("health", "Whether the process lives", {"status": _TEXT})},
        "/ready": {"get": _ready("ready")},
        "/version": {
            "get": _reported(
                "version",
                "The build, and what runs the models",
                dict.fromkeys(("name", "version", "python", "backend", "forward"), _TEXT)
                | {"git_sha": _GIT_SHA, "device": _DEVICE},
            )
        },
        "/metrics": {"get": _operation("metrics", "Counts for Prometheus", _content("text/plain"), [401])},
        "/openapi.json": {"get": _operation("openapi", "This document", _content("application/json"), [401])},
        "/models": {
            "get": _operation("models", "What is served", _json(_object({"models": _array(_ref("Model"))})), [401])
        },
        "/models/{name}": {
            "parameters": [named],
            "get": _operation("model", "One model", _json(_ref("Model")), [401, 404]),
        },
        "/predict": _predict("predict", "the default model", default),
    }
    for name, served in service.models.items():
        paths[f"/models/{name}/predict"] = _predict(f"predict-{name}", name, served)
    if settings.health_route:
        paths[settings.health_route] = {"get": _ready("vertex-health")}
    if settings.predict_route:
        paths[settings.predict_route] = _predict("vertex-predict", "the default model", default)
    return paths


def _parameters(served: ServedModel | None) -> Json | None:
    """JSON Schema of each parameter of a model by name; None where the model cannot say."""
    if served is None:
        return None
    try:
        schema: Json = served.parameters()
    except Failure:
        return None
    properties: Json = schema["properties"]
    older = {name: newer for name, newer in OLDER_NAMES.items() if newer in properties}
    return properties | {name: _older(newer, properties[newer]) for name, newer in older.items()}


def _older(newer: str, schema: Json) -> Json:
    told = {"description": f"what older clients call `{newer}`", "deprecated": True}
    return {key: value for key, value in schema.items() if key != "default"} | told


def _predict(name: str, model: str, served: ServedModel | None) -> Json:
    known = _parameters(served)
    fields = (known or {}) | {"format": _FORMAT} | _ECHOED
    query = [_in_query(field, schema) for field, schema in fields.items()]
    by_url = {"name": "image_url", "in": "query", "required": True, "schema": _URL}
    pictures: Json = {MEDIA_TYPES[form]: {} for form in FORMATS if form != "json"}
    body = {
        "required": True,
        "description": "One picture, in one of these forms.",
        "content": {
            "image/*": {},
            "application/octet-stream": {},
            "multipart/form-data": _multipart(known),
            "application/json": {"schema": {"oneOf": [_picture(known), _envelope(known)]}},
        },
    }
    one = {"application/json": {"schema": _ref("Reply")}} | pictures
    any_form = {"application/json": {"schema": {"oneOf": [_ref("Reply"), _ref("VertexReply")]}}} | pictures
    statuses = [status for status in _statuses() if status not in (405, 500, 503)]
    without_body = [status for status in statuses if status != 408]
    return {
        "get": _operation(f"{name}-url", f"What {model} sees in a picture fetched by URL", one, without_body)
        | {"parameters": [by_url, *query, {"$ref": "#/components/parameters/X-Request-Id"}]},
        "post": _operation(name, f"What {model} sees in a picture", any_form, statuses)
        | {"parameters": [*query, {"$ref": "#/components/parameters/X-Request-Id"}], "requestBody": body},
    }


def _in_query(name: str, schema: Json) -> Json:
    """A list or object in a query is JSON text."""
    how = {"content": {"application/json": {"schema": schema}}} if _is_nested(schema) else {"schema": schema}
    return {"name": name, "in": "query", **how}


def _is_nested(schema: Json) -> bool:
    return schema.get("type") in ("array", "object") or any(map(_is_nested, schema.get("anyOf", ())))


def _multipart(known: Json | None) -> Json:
    fields = (known or {}) | {"format": _FORMAT} | _ECHOED
    lists = [field for field, schema in fields.items() if _is_nested(schema)]
    file = {"description": "the picture as a file; what it is, its bytes say", "type": "string", "format": "binary"}
    schema = _object({"image": file} | fields, required=["image"])
    as_json = {field: {"contentType": "application/json"} for field in lists}
    return {"schema": schema, "encoding": {"image": {"contentType": "image/*, application/octet-stream"}} | as_json}


def _picture(known: Json | None) -> Json:
    """A picture and its parameters in JSON: exactly one of the picture's fields, or none beside an `embedding`."""
    fields = _PICTURE_FIELDS | {"image_url": _URL} | (known or {}) | {"format": _FORMAT} | _ECHOED
    exactly_one: Json = {"oneOf": [{"required": [field]} for field in (*_PICTURE_FIELDS, "image_url")]}
    if "embedding" in fields:
        exactly_one = {"anyOf": [exactly_one, {"required": ["embedding"]}]}
    return {"type": "object", "properties": fields, **exactly_one, "additionalProperties": known is None}


def _envelope(known: Json | None) -> Json:
    """Vertex AI's form."""
    common = {"type": "object", "properties": known or {}, "additionalProperties": known is None}
    instances = {
        "type": "array",
        "items": {"anyOf": [_picture(known), _BYTES]},
        "minItems": 1,
        "maxItems": MOST_INSTANCES,
    }
    schema = _object({"instances": instances, "parameters": common}, required=["instances"])
    return {"description": "Vertex AI's form: many pictures, `parameters` common to them"} | schema


def _ready(name: str) -> Json:
    state = {"type": "string", "enum": list(get_args(State))}
    answer = _object({"state": state, "backend": _TEXT, "reason": _TEXT}, required=["state"], closed=False)
    operation = _operation(
        name, "Whether the model can answer; asking starts the loading", _json(answer), [], open_to_all=True
    )
    waiting = {"allOf": [answer, _ref("Failure")]}
    operation["responses"]["503"] = _reply(
        "not ready: cold, warming, at capacity or broken", _json(waiting), retry=True
    )
    return operation


def _asset() -> Json:
    operation = _operation("asset", "A file of the page", _content("*/*"), [404], open_to_all=True)
    operation["responses"]["304"] = {"description": "unchanged since the ETag that was sent"}
    return operation


def _reported(name: str, summary: str, properties: Json) -> Json:
    return _operation(name, summary, _json(_object(properties)), [], open_to_all=True)


def _operation(name: str, summary: str, content: Json, statuses: list[int], *, open_to_all: bool = False) -> Json:
    failures = {f"{status}": {"$ref": f"#/components/responses/{status}"} for status in sorted({*statuses, 500, 503})}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _reply("the answer", content)} | failures,
        **({"security": []} if open_to_all else {}),
    }


def _reply(description: str, content: Json, *, retry: bool = False) -> Json:
    names = ("X-Request-Id", "Retry-After") if retry else ("X-Request-Id",)
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {"description": description, "headers": headers, "content": content}


def _statuses() -> list[int]:
    return sorted({kind.status for kind in errors.kinds()})


def _failed(status: int) -> Json:
    """What a failure of that status looks like, with the codes that it comes with."""
    kinds = [kind for kind in errors.kinds() if kind.status == status]
    described = "; ".join(f"`{kind.code}`: {(kind.__doc__ or '').strip()}" for kind in kinds)
    code = _object({"code": {"enum": [kind.code for kind in kinds]}}, closed=False)
    schema = {"allOf": [_ref("Failure"), _object({"error": code}, closed=False)]}
    return _reply(described, _json(schema), retry=status in (429, 503))


def _backends(service: Service) -> list[str]:
    """Those that may answer."""
    settings = service.settings
    return [settings.backend, *([settings.fallback] if settings.fallback else [])]


def _schemas(service: Service) -> Json:
    """The bodies that more than one route gives."""
    kinds = _kinds(service)
    named = (*kinds, Embedding, Profile)
    _, structs = msgspec.json.schema_components(named, ref_template="#/components/schemas/{name}")
    reply = {
        "model": _TEXT,
        "task": _TEXT,
        "backend": {"type": "string", "enum": _backends(service)},
        "image": _object({"width": {"type": "integer"}, "height": {"type": "integer"}}),
        "predictions": _array({"anyOf": [_ref(kind.__name__) for kind in kinds]} if kinds else {}),
        "notes": _array(_TEXT),
        "timings_ms": {"type": "object", "additionalProperties": _NUMBER, "description": "by stage, and in total"},
        "cold_start": {"type": "boolean", "description": "whether this request waited for the model to be loaded"},
        "request_id": _TEXT,
    }
    sometimes = {
        "render_factor": {"type": "integer", "description": "the network's input was a square of 16 times this"},
        "embedding": _ref("Embedding"),
    }
    failure = {
        "code": {"type": "string", "enum": [kind.code for kind in errors.kinds()], "description": "stable"},
        "message": {"type": "string", "description": "for the person who called"},
        "request_id": _TEXT,
        "limit": _NUMBER,
        "found": {},
    }
    model = {"name": _TEXT, "backend": _TEXT, "ready": {"type": "boolean"}}
    described = {
        "task": _TEXT,
        "family": _TEXT,
        "licence": _TEXT,
        "default": {"type": "boolean"},
        "parameters": {"type": "object"},
        "reason": _TEXT,
    }
    described["profile"] = _ref("Profile")
    return {
        **structs,
        "Reply": _object(reply | sometimes | _ECHOED, required=list(reply)),
        "VertexReply": _object({"predictions": _array({"oneOf": [_ref("Reply"), _ref("Failure")]})}),
        "Failure": _object(
            {"error": _object(failure, required=["code", "message", "request_id"], closed=False)}, closed=False
        ),
        "Model": _object(model | described, required=list(model)),
    }


def _kinds(service: Service) -> list[Any]:
    """What the predictions of the served models are; none where one is of a task of the user's own."""
    served = []
    for one in service.models.values():
        with suppress(Failure):  # its model.json cannot be read
            served.append(one.model.task)
    return [] if set(served) - KINDS.keys() else [KINDS[task] for task in dict.fromkeys(served)]


def _object(properties: Json, *, required: list[str] | None = None, closed: bool = True) -> Json:
    """An object with these properties, all of them required unless said otherwise."""
    names = list(properties) if required is None else required
    schema: Json = {"type": "object", "properties": properties, "required": names}
    return schema | ({"additionalProperties": False} if closed else {})


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _content(media_type: str) -> Json:
    return {media_type: {}}
