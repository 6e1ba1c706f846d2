"""The pages that the server writes itself, and the listing of static files."""

from __future__ import annotations

import re

import pytest

from shared.web import page

REPLY: dict[str, object] = {
    "model": "m",
    "predictions": [{"label": "<b>cat</b>", "class_id": 1, "score": 0.876, "box": [1.4, 2.6, 30, 40]}],
    "timings_ms": {"decode": 1.25, "total": 9.0},
    "cold_start": True,
    "request_id": "r-1",
    "notes": ["a & b"],
}


def test_the_page_has_no_inline_script_or_style() -> None:
    html = page.index().decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", html)


def test_the_page_names_only_static_files_that_exist() -> None:
    names = re.findall(r'"static/([^"]+)"', page.index().decode())
    assert len(names) > 8
    assert all(page.asset(name) for name in names)


def test_the_page_refers_to_nothing_by_an_absolute_path() -> None:
    assert not re.search(r'(?:href|src|action)="(?:/|https?:)', page.index().decode())


def test_every_listed_asset_can_be_read() -> None:
    assert all(page.asset(name) for name in page.ASSETS)


@pytest.mark.parametrize("name", ["", ".", "../page.py", "samples", "samples/../app.css", "/etc/passwd", "index.html"])
def test_a_name_outside_the_listing_is_no_asset(name: str) -> None:
    assert page.asset(name) is None


def test_the_result_page_holds_the_drawn_picture() -> None:
    assert 'src="data:image/png;base64,AAEC"' in page.result(b"\0\1\2", "image/png", REPLY).decode()


def test_the_result_page_escapes_labels_and_notes() -> None:
    html = page.result(b"", "image/png", REPLY).decode()
    assert "<b>cat" not in html
    assert "&lt;b&gt;cat&lt;/b&gt;" in html
    assert "a &amp; b" in html


def test_the_result_page_rounds_scores_and_boxes() -> None:
    assert "<td>0.88</td><td>1 3 30 40</td>" in page.result(b"", "image/png", REPLY).decode()


def test_the_result_page_marks_a_cold_start() -> None:
    assert "cold start" in page.result(b"", "image/png", REPLY).decode()
    assert "cold start" not in page.result(b"", "image/png", REPLY | {"cold_start": False}).decode()


def test_an_empty_result_says_so() -> None:
    assert "No objects" in page.result(b"", "image/png", REPLY | {"predictions": []}).decode()


def test_the_failure_page_names_code_and_request() -> None:
    html = page.failure(424, "url_failed", "It said <404>.", "r-9").decode()
    assert "It said &lt;404&gt;." in html
    assert "424 · url_failed · request r-9" in html


def test_a_dollar_in_a_message_is_shown_as_it_is() -> None:
    assert "costs $title" in page.failure(400, "c", "costs $title", "r").decode()
