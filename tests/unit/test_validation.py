from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from shared.validation import Mismatch, convert, parse_json, show, suggest


class Item(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["a", "b"]
    size: Annotated[int, Meta(ge=1)] = 1


class Box(msgspec.Struct, forbid_unknown_fields=True):
    items: list[Item]
    named: dict[str, Item] = {}
    lid: Item | None = None


CASES = {
    "a value": ({"items": [{"kind": "a", "size": 0}]}, "items[0].size: Expected `int` >= 1, found 0"),
    "a choice": ({"items": [{"kind": "c"}]}, "items[0].kind: expected one of a, b, found 'c'"),
    "a choice that may be missing": ({"items": [], "lid": {"kind": "c"}}, "lid.kind: expected"),
    "a choice under a key": (
        {"items": [], "named": {"x": {"kind": "c"}}},
        "named.x.kind: expected one of a, b, found 'c'",
    ),
    "under one of many keys": (
        {"items": [], "named": {"x": {"kind": "a"}, "y": {"kind": "c"}}},
        "named.kind: expected one of a, b",
    ),
    "a field that is missing": ({}, "Object missing required field `items`"),
    "a field that is missing inside": ({"items": [{}]}, "items[0]: Object missing required field `kind`"),
    "an unknown field": ({"itms": []}, "itms: unknown field; did you mean 'items'?"),
    "an unknown field inside": ({"items": [{"kind": "a", "x": 1}]}, "items[0].x: unknown field"),
    "another type": ([], "Expected `object`, got `array`, found an array of 0"),
    "a long text": ({"items": "x" * 9999}, "items: Expected `array`, got `str`, found 'xxx"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mismatch_names_the_field_the_value_and_what_was_expected(case: str) -> None:
    value, message = CASES[case]
    with pytest.raises(Mismatch) as raised:
        convert(value, Box)
    assert str(raised.value).startswith(message)
    assert len(str(raised.value)) < 200


def test_an_unknown_field_is_marked_as_such() -> None:
    with pytest.raises(Mismatch) as raised:
        convert({"items": [], "x": 1}, Box)
    assert (raised.value.field, raised.value.unknown) == ("x", True)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        parse_json(data)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_nesting_without_end_is_a_value_error(opening: bytes) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(opening * 100_000)


def test_a_shown_value_is_never_long() -> None:
    for value in ("x" * 10**6, list(range(10**5)), {"a": "b" * 10**5}, 10**300, b"x" * 10**5, None):
        assert len(show(value)) <= 81


def test_the_nearest_name_is_suggested() -> None:
    assert suggest("theads", ["threads", "model"]) == "did you mean 'threads'?"


def test_else_all_names_are_listed() -> None:
    assert suggest("x", ["b", "a"]) == "expected one of a, b"


def test_of_many_names_the_first_ones() -> None:
    listed = suggest("x", [f"name-{i:03}" for i in range(1000)])
    assert listed.endswith("name-019 … (1000 in all)")


def test_a_name_as_long_as_a_body_costs_no_time() -> None:
    assert suggest("x" * 10**7, ["a"]) == "expected one of a"
