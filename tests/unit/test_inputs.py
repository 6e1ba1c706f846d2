from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from shared.call import Call
from shared.errors import Failure, InvalidMultipart, InvalidParameter
from shared.sources import Inline, Unsent, Url
from shared.web import inputs
from shared.web.inputs import Envelope, Given

MULTIPART = "multipart/form-data; boundary=b"


def read(*, query: list[tuple[str, str]] | None = None, method: str = "POST", **request: Any) -> Given | Envelope:
    environ = EnvironBuilder(method=method, **request).get_environ()
    return inputs.read(environ, query or [], 10**6, Call("test", 10))


def one(**request: Any) -> Given:
    found = read(**request)
    assert isinstance(found, Given)
    return found


def in_json(content: object) -> dict[str, Any]:
    return {"data": json.dumps(content), "content_type": "application/json"}


def part(head: str, data: bytes = b"x") -> bytes:
    return f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n--b--\r\n"


def test_what_is_no_picture_no_format_and_no_echo_is_a_parameter() -> None:
    query = [("format", "png"), ("image_name", "[a"), ("score_threshold", "0.5"), ("labels", '["a"]'), ("code", "k")]
    found = one(data=b"x", content_type="image/png", query=query)
    assert found == Given(Inline(b"x"), "png", {"score_threshold": "0.5", "labels": ["a"]}, {"image_name": "[a"})


def test_a_get_takes_its_picture_from_the_query_alone() -> None:
    found = one(method="GET", data=b"x", content_type="image/png", query=[("image_url", "http://a")])
    assert found.source == Url("http://a")


def test_a_url_is_never_read_as_json() -> None:
    assert one(method="GET", query=[("image_url", "[not json")]).source == Url("[not json")


def test_parameters_of_query_and_body_are_joined() -> None:
    assert one(**in_json({"image_url": "http://a", "a": 1}), query=[("b", "2")]).parameters == {"a": 1, "b": "2"}


def test_a_files_bytes_do_not_touch_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(800_000)
    body = part('name="image"; filename="a.png"', data)
    environ = EnvironBuilder(method="POST", input_stream=BytesIO(body), content_type=MULTIPART).get_environ()
    environ["CONTENT_LENGTH"] = str(len(body))
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    found = inputs.read(environ, [], 10**6, Call("test", 10))
    assert isinstance(found, Given)
    assert found.source == Inline(data)


@pytest.mark.parametrize("head", ['name="image"; filename="a"', 'name="image"; filename=""', "name=image; filename=a"])
def test_a_file_may_be_called_anything(head: str) -> None:
    assert one(data=part(head), content_type=MULTIPART).source == Inline(b"x")


def test_an_instance_inherits_the_common_parameters_and_may_differ() -> None:
    instances = [{"image_url": "http://a"}, {"image_url": "http://b", "n": 2, "m": None}]
    found = read(**in_json({"instances": instances, "parameters": {"n": 1, "m": 3, "o": None}}))
    assert isinstance(found, Envelope)
    assert [each.parameters for each in found.instances if isinstance(each, Given)] == [
        {"n": 1, "m": 3},
        {"n": 2, "m": 3},
    ]


def test_a_bad_instance_stands_in_its_place() -> None:
    found = read(**in_json({"instances": [{"image_url": "http://a"}, 3, {"image": "#"}]}))
    assert isinstance(found, Envelope)
    assert [isinstance(each, Failure) for each in found.instances] == [False, True, True]


def test_a_form_that_repeats_a_field_is_refused() -> None:
    data = part('name="n"').removesuffix(b"--b--\r\n") + part('name="n"')
    with pytest.raises(InvalidParameter, match="n is given twice in the form"):
        read(data=data, content_type=MULTIPART)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=300), st.sampled_from(["", "image/png", "application/json", MULTIPART, "multipart/form-data"])
)
def test_any_body_is_a_picture_or_the_callers_fault(data: bytes, kind: str) -> None:
    try:
        read(data=data, content_type=kind)
    except Failure as failure:
        assert 400 <= failure.status < 500  # noqa: PT017 - any of a family of errors will do


_PIECES = [
    b"--b", b"--b--", b"\r\n", b"\n", b": ", b"; ", b"Content-Disposition: form-data", b'name="image"', b'filename="',
    b'"', b"Content-Type: text/plain; charset=utf-7", b"Content-Length: -1", b"x" * 50, b"\0", b"\xff",
]  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(_PIECES), max_size=25).map(b"".join))
def test_any_broken_form_is_the_callers_fault(data: bytes) -> None:
    try:
        read(data=data, content_type=MULTIPART)
    except Failure as failure:
        assert failure.status == 400  # noqa: PT017


def test_a_form_whose_end_is_missing_is_broken() -> None:
    with pytest.raises(InvalidMultipart):
        read(data=part('name="image"; filename="a"')[:-7], content_type=MULTIPART)


def test_an_embedding_may_stand_for_the_picture() -> None:
    found = one(**in_json({"embedding": {"model": "m"}}))
    assert found == Given(Unsent(), None, {"embedding": {"model": "m"}}, {})
