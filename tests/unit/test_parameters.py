from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import InvalidParameter, UnknownParameter
from shared.parameters import DetectionParameters, EnlargeParameters, PromptableParameters, parse, schema

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


def test_text_for_what_may_be_a_list_or_an_object_is_told_how_to_write_one() -> None:
    for name in ("box", "mask_input"):
        with pytest.raises(InvalidParameter, match="JSON text"):
            parse(PromptableParameters(), {name: "1,2,3,4"})


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
        "render_factor": "auto",
    }  # fmt: skip
    assert all(kind["description"] for kind in described["properties"].values())


@pytest.mark.parametrize(
    ("older", "value", "name", "parsed"),
    [
        ("input_point", [[1, 2]], "points", ((1.0, 2.0),)),
        ("point_coords", [[1, 2]], "points", ((1.0, 2.0),)),
        ("input_label", ["1", 0], "point_labels", (1, 0)),
        ("input_box", [1, 2, 3, 4], "box", (1.0, 2.0, 3.0, 4.0)),
    ],
)
def test_older_names_are_read(older: str, value: object, name: str, parsed: object) -> None:
    assert getattr(parse(PromptableParameters(), {older: value}), name) == parsed


def test_upscale_factor_is_the_scale() -> None:
    assert parse(EnlargeParameters(), {"upscale_factor": "2"}).scale == 2


def test_an_older_name_beside_the_newer_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="scale is given twice, once by an older name"):
        parse(EnlargeParameters(), {"upscale_factor": 2, "scale": 2})


def test_an_older_name_is_unknown_to_other_tasks() -> None:
    with pytest.raises(UnknownParameter):
        parse(DEFAULTS, {"upscale_factor": 2})


@pytest.mark.parametrize(("value", "factor"), [("35", 35), (35, 35), ("auto", "auto")])
def test_a_render_factor_is_a_number_or_auto(value: object, factor: object) -> None:
    assert parse(DEFAULTS, {"render_factor": value}).render_factor == factor


@pytest.mark.parametrize("value", ["big", 0, 3.5, True, None, 100_000])
def test_any_other_render_factor_is_refused(value: object) -> None:
    with pytest.raises(InvalidParameter, match="render_factor: "):
        parse(DEFAULTS, {"render_factor": value})


@pytest.mark.parametrize("defaults", [PromptableParameters(), EnlargeParameters()])
def test_every_parameter_of_every_task_is_described(defaults: PromptableParameters | EnlargeParameters) -> None:
    properties: dict[str, Any] = schema(defaults)["properties"]  # type: ignore[assignment]
    assert all(kind.get("description") for kind in properties.values())
    assert "$ref" not in str(properties)
