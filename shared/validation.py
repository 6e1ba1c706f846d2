"""Untrusted values into typed structs, with errors that name the field, the value found and what was expected."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_PATH = re.compile(r"(?P<what>.*?) - at `(?P<path>\$[^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`")
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")
_LONGEST_VALUE = 80
_MOST_NAMES = 20


class Mismatch(Exception):
    """A value that does not have the declared type. `field` is a dotted path, '' for the value itself."""

    def __init__(self, field: str, what: str, *, unknown: bool = False) -> None:
        super().__init__(f"{field}: {what}" if field else what)
        self.field = field
        self.what = what
        self.unknown = unknown


def convert(value: object, into: type[T], *, strict: bool = True) -> T:
    """`value` (plain JSON types) as `into`; raises Mismatch that names the field, the value and what was expected."""
    try:
        return msgspec.convert(value, into, strict=strict)
    except msgspec.ValidationError as error:
        raise _mismatch(str(error), value, into) from error


def parse_json(data: bytes) -> Any:
    """JSON bytes as plain values; raises ValueError with the reason, whatever the bytes (msgspec lets
    RecursionError through for deep nesting, which is outside its own error class)."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def show(value: object) -> str:
    """`value` for a message: as Python writes it, cut at a length that cannot flood a log or a reply."""
    if isinstance(value, dict | list):
        return f"an {'object' if isinstance(value, dict) else 'array'} of {len(value)}"
    text = repr(value[: _LONGEST_VALUE + 1]) if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def suggest(name: str, known: list[str]) -> str:
    """A clause for a message about an unknown name: the nearest known one, or all of them, or the first of many."""
    from difflib import get_close_matches  # only a message needs it

    near = get_close_matches(name, known, n=1) if len(name) <= _LONGEST_VALUE else []  # its time grows with the square
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" … ({len(known)} in all)" if len(known) > _MOST_NAMES else ""
    return f"expected one of {', '.join(sorted(known)[:_MOST_NAMES])}{more}"


def _mismatch(message: str, value: object, into: type) -> Mismatch:
    match = _PATH.match(message)
    what, path = (match["what"], match["path"]) if match else (message, "$")
    path = _with_key(path, value)
    field = path.removeprefix("$").lstrip(".").replace("[...]", "")
    unknown = _UNKNOWN.match(what)
    if unknown:
        name = unknown["field"]
        known = [f.encode_name for f in msgspec.structs.fields(into)] if not field and _is_struct(into) else []
        hint = f"; {suggest(name, known)}" if known else ""
        return Mismatch(f"{field}.{name}".lstrip("."), f"unknown field{hint}", unknown=True)
    if what.startswith("Invalid enum value"):
        what = f"expected {_choices(into, path)}"
    found = _at(value, path)
    return Mismatch(field, what if found is _ABSENT or "missing required" in what else f"{what}, found {show(found)}")


def _choices(into: type, path: str) -> str:
    """The values that the Literal at a msgspec path takes, for the sentence `expected …`."""
    kind = _bare(msgspec.inspect.type_info(into))
    for step in _STEP.finditer(path):
        kind = _bare(_inner(kind, step["key"]))
    kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    literals = [each for each in map(_bare, kinds) if isinstance(each, msgspec.inspect.LiteralType)]
    if not literals:
        return "another value"
    words = ", ".join(map(str, literals[0].values))
    return f"a whole number or {words}" if any(map(_is_int, kinds)) else f"one of {words}"


def _is_int(kind: msgspec.inspect.Type) -> bool:
    return isinstance(_bare(kind), msgspec.inspect.IntType)


def _inner(kind: msgspec.inspect.Type, key: str | None) -> msgspec.inspect.Type:
    """The type of a field, of an item or of a value of `kind`."""
    if isinstance(kind, msgspec.inspect.UnionType):  # of which one at most has an inside, as JSON would have it
        return next((inner for each in map(_bare, kind.types) if (inner := _inner(each, key)) is not each), kind)
    if isinstance(kind, msgspec.inspect.StructType):
        return next((field.type for field in kind.fields if field.encode_name == key), kind)
    if isinstance(kind, msgspec.inspect.DictType):
        return kind.value_type
    item: msgspec.inspect.Type = getattr(kind, "item_type", kind)
    return item


def _bare(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    return kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


_ABSENT = object()


def _with_key(path: str, value: object) -> str:
    """`path` with `[...]`, all that msgspec says of a place in an object, made the key where there is only one."""
    before, dots, after = path.partition("[...]")
    inside = _at(value, before) if dots else None
    if isinstance(inside, dict) and len(inside) == 1:
        return _with_key(f"{before}.{next(iter(inside))}{after}", value)
    return path


def _at(value: object, path: str) -> object:
    """The value at a msgspec path like `$.networks.detector.inputs[0].dtype`, or _ABSENT."""
    for step in _STEP.finditer(path):
        try:
            value = value[step["key"] if step["key"] is not None else int(step["index"])]  # type: ignore[index]
        except (KeyError, IndexError, TypeError, ValueError):
            return _ABSENT
    return value
