from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidParameter, MethodNotAllowed, NotAcceptable, TooManyRequests, Unauthorized
from shared.web.replies import FORMATS, chosen_format, failure_json, failure_response


@pytest.mark.parametrize("accept", [None, "", "*/*", "text/html", "application/json", "TEXT/HTML", "Application/JSON"])
def test_json_is_the_answer_where_nobody_asks_for_a_picture(accept: str | None) -> None:
    assert chosen_format(None, accept) == "json"


@pytest.mark.parametrize("weight", ["q=0.5", "Q=0.5", "charset=utf-8;q=0.5", "q=0.5; level=1"])
def test_weights_count_and_other_parameters_do_not(weight: str) -> None:
    assert chosen_format(None, f"application/json;{weight}, image/webp;q=0.4") == "json"
    assert chosen_format(None, f"application/json;{weight}, image/webp;q=0.6") == "webp"


def test_a_form_that_is_ruled_out_is_not_given() -> None:
    assert chosen_format(None, "application/json;q=0, image/png;q=0, */*") == "jpeg"


@pytest.mark.parametrize("accept", ["image/png", "image/*"])
def test_where_only_json_can_be_given_a_picture_is_not_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        chosen_format(None, accept, only=("json",))


@pytest.mark.parametrize("parameter", ["gif", "PNG", "", 3, [], {}, True])
def test_an_unknown_format_is_named(parameter: object) -> None:
    with pytest.raises(InvalidParameter, match=r"format: expected one of json, png, jpeg, webp, found"):
        chosen_format(parameter, None)


@settings(deadline=None)
@given(st.text(alphabet="aijpngtex/*;,q=.01 \x00\xff\"'", max_size=60))
def test_any_accept_is_understood_or_refused(accept: str) -> None:
    try:
        assert chosen_format(None, accept) in FORMATS
    except NotAcceptable:
        return


def test_the_figures_stand_beside_the_message() -> None:
    content: dict[str, Any] = failure_json(InvalidParameter("n: wrong", parameter="n"), "id")
    assert content == {
        "error": {"code": "invalid_parameter", "message": "n: wrong", "request_id": "id", "parameter": "n"}
    }


def test_what_a_caller_sent_is_not_repeated_at_length() -> None:
    response = failure_response(InvalidParameter("x" * 10**6, parameter="y" * 10**6), "id")
    assert len(response.get_data()) < 1500


def test_each_failure_has_its_headers() -> None:
    busy = failure_response(TooManyRequests("wait", retry_after_s=3), "id")
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "3")
    assert failure_response(MethodNotAllowed("no", allowed=["GET", "HEAD"]), "id").headers["Allow"] == "GET, HEAD"
    assert failure_response(Unauthorized("no"), "id").headers["WWW-Authenticate"] == "Bearer"
