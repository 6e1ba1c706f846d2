from __future__ import annotations

import re

import pytest

from shared import errors
from shared.errors import ConfigurationError, Failure

KINDS = errors.kinds()


def test_codes_are_stable_and_each_is_one_kinds_own() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", code) for code in codes)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_a_kind_says_in_words_what_it_means(kind: type[Failure]) -> None:
    assert kind.__doc__
    assert not kind.__doc__[0].isupper() or kind.__doc__.startswith("Content-Type")
    assert 400 <= kind.status < 600


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_a_kind_has_the_status_of_its_family(kind: type[Failure]) -> None:
    parent = kind.__base__
    assert parent is Failure or parent.status == kind.status  # type: ignore[union-attr]


def test_the_statuses_are_those_of_the_contract() -> None:
    expected = {400, 401, 404, 405, 406, 408, 413, 415, 422, 424, 429, 500, 502, 503, 504}
    assert {kind.status for kind in KINDS} == expected


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"[A-Z][A-Za-z0-9]+", errors.__doc__ or "")
    assert {kind.__name__ for kind in KINDS} <= set(drawn)


def test_a_wrong_setting_is_never_a_callers_fault() -> None:
    assert not issubclass(ConfigurationError, Failure)


def test_a_failure_carries_its_figures() -> None:
    failure = errors.BodyTooLarge("too large", limit=1, found=2)
    assert (str(failure), failure.figures, failure.retry_after_s) == ("too large", {"limit": 1, "found": 2}, None)
