"""Messages in protobuf's text format: the same message is the same text, whatever its strings hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Word(str):
    """The name of an enum's value, which stands without quotes."""

    __slots__ = ()


Value = bool | int | str | Mapping[str, "Value"] | Sequence["Value"]
Message = Mapping[str, Value]


def text_format(message: Message) -> str:
    """`message` as text: its fields in their order; a sequence is a repeated field."""
    return "".join(f"{line}\n" for line in _lines(message))


def entries(values: Mapping[str, Message]) -> list[Message]:
    """A map field, which is a field given several times."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield f"{name} {{"
            yield from (f"  {line}" for line in _lines(value))
            yield "}"
        elif isinstance(value, str | int):
            yield f"{name}: {_scalar(value)}"
        elif any(isinstance(item, Mapping) for item in value):
            yield from (line for item in value for line in _lines({name: item}))
        elif value:
            yield f"{name}: [{', '.join(map(_scalar, value))}]"


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Word | int):
        return str(value)
    assert isinstance(value, str), value
    return f'"{"".join(map(_character, value))}"'


def _character(character: str) -> str:
    """Printable ASCII stays; the rest becomes the octal escapes of its UTF-8 bytes."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if " " <= character <= "~":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogatepass"))
