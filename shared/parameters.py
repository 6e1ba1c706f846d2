"""What a caller may ask of a task. One struct a task: validation, /models, OpenAPI and the page come from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from shared.errors import InvalidParameter, UnknownParameter
from shared.validation import Mismatch, convert, show, suggest


class DetectionParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    score_threshold: Annotated[float, Meta(ge=0, le=1, description="keep predictions with at least this score")]
    iou_threshold: Annotated[
        float, Meta(ge=0, le=1, description="of two boxes of one class that overlap more than this, keep the better")
    ]
    max_predictions: Annotated[int, Meta(ge=1, le=1000, description="keep at most this many, the best ones")]
    labels: Annotated[tuple[str, ...], Meta(max_length=1000, description="keep only these; empty keeps all")] = ()


Parameters: TypeAlias = DetectionParameters
P = TypeVar("P", bound=msgspec.Struct)


def parse(defaults: P, given: Mapping[str, object]) -> P:
    """`defaults` with what the caller gave (JSON values, or text from a query or form) laid over them.

    Raises UnknownParameter or InvalidParameter that name the parameter, the value and what was expected.
    """
    if not given:
        return defaults
    known = list(defaults.__struct_encode_fields__)
    for name in given:
        if name not in known:
            raise UnknownParameter(
                f"unknown parameter {show(name)}; {suggest(name, [*known, 'format'])}", parameter=name
            )
    try:
        return convert(msgspec.structs.asdict(defaults) | dict(given), type(defaults), strict=False)
    except Mismatch as error:
        hint = "; a list in a query or form is JSON text" if "`array`, got `str`" in error.what else ""
        raise InvalidParameter(f"{error}{hint}", parameter=error.field.partition("[")[0]) from error


def schema(defaults: msgspec.Struct) -> dict[str, object]:
    """JSON Schema (2020-12) of a task's parameters, with the model's own defaults in it."""
    (reference,), components = msgspec.json.schema_components([type(defaults)])
    body = components[str(reference["$ref"]).rsplit("/", 1)[-1]]
    values = msgspec.to_builtins(defaults)
    properties = {
        name: {key: value for key, value in kind.items() if key != "title"} | {"default": values[name]}
        for name, kind in body["properties"].items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}
