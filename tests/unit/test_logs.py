from __future__ import annotations

import json
import logging
import sys
from datetime import datetime

from shared.web.logs import JsonLines


def line(message: str, *arguments: object, error: BaseException | None = None, **fields: object) -> dict[str, object]:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("thinlens", logging.INFO, "", 0, message, arguments, info)
    record.fields = fields
    text = JsonLines().format(record)
    assert "\n" not in text
    found: dict[str, object] = json.loads(text)
    return found


def test_a_record_is_one_line_of_json() -> None:
    found = line("model %s", "m", status=200)
    assert (found["message"], found["level"], found["status"]) == ("model m", "info", 200)
    assert datetime.fromisoformat(str(found["time"])).tzinfo


def test_a_message_of_several_lines_stays_one_line() -> None:
    assert line("a\nb\r\n\x1b[31m\u2028")["message"] == "a\nb\r\n\x1b[31m\u2028"


def test_a_trace_stays_one_line() -> None:
    assert "LookupError: gone" in str(line("bug", error=LookupError("gone"))["trace"])


def test_what_json_cannot_hold_does_not_silence_the_line() -> None:
    found = line("path %s", "\udcff", place=sys, text="\ud800", number=float("nan"))
    assert "path" in str(found["message"])
