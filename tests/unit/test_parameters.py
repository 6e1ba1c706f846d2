from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import InvalidParameter, UnknownParameter
from shared.parameters import DetectionParameters, parse, schema

DEFAULTS = DetectionParameters(0.25, 0.5, 100)
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text() | st.integers())


def test_nothing_given_gives_the_defaults() -> None:
    assert parse(DEFAULTS, {}) == DEFAULTS


def test_what_is_given_lies_over_the_defaults() -> None:
    found = parse(DEFAULTS, {"score_threshold": "0.9", "labels": ["cat"]})
    assert found == DetectionParameters(0.9, 0.5, 100, ("cat",))


@pytest.mark.parametrize("value", [3, 3.0, "3", "3.0", "3e0"])
def test_a_whole_number_may_be_written_in_many_ways(value: object) -> None:
    assert parse(DEFAULTS, {"max_predictions": value}).max_predictions == 3


@pytest.mark.parametrize("value", [0, 1001, 1.5, "x", "", " 3", True, None, [], {}, "nan", float("nan"), "9" * 5000])
def test_a_wrong_number_is_named(value: object) -> None:
    with pytest.raises(InvalidParameter, match=r"^max_predictions: ") as raised:
        parse(DEFAULTS, {"max_predictions": value})
    assert raised.value.figures == {"parameter": "max_predictions"}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e309", float("nan"), float("inf"), -0.1, 1.1])
def test_a_threshold_lies_between_0_and_1(value: object) -> None:
    with pytest.raises(InvalidParameter, match=r"^score_threshold: "):
        parse(DEFAULTS, {"score_threshold": value})


def test_a_wrong_item_of_a_list_is_named() -> None:
    with pytest.raises(InvalidParameter, match=r"^labels\[1\]: .*found 3") as raised:
        parse(DEFAULTS, {"labels": ["cat", 3]})
    assert raised.value.figures == {"parameter": "labels"}


def test_text_for_a_list_is_told_how_to_write_one() -> None:
    with pytest.raises(InvalidParameter, match="JSON text"):
        parse(DEFAULTS, {"labels": "cat"})


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UnknownParameter, match="did you mean 'score_threshold'"):
        parse(DEFAULTS, {"scorethreshold": 1})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*DEFAULTS.__struct_fields__, "x"]), ANYTHING, max_size=3))
def test_whatever_is_given_the_result_is_right_or_the_callers_fault(given_: dict[str, Any]) -> None:
    try:
        found = parse(DEFAULTS, given_)
    except (InvalidParameter, UnknownParameter):
        return
    assert 0 <= found.score_threshold <= 1
    assert 1 <= found.max_predictions <= 1000


def test_the_schema_has_the_models_own_defaults() -> None:
    described: dict[str, Any] = schema(DEFAULTS)
    assert {name: kind["default"] for name, kind in described["properties"].items()} == {
        "score_threshold": 0.25, "iou_threshold": 0.5, "max_predictions": 100, "labels": (),
    }  # fmt: skip
    assert all(kind["description"] for kind in described["properties"].values())
