"""One JSON line a request. Never what is in a picture, never a key, never a query."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

LOGGER = logging.getLogger("thinlens")


class JsonLines(logging.Formatter):
    """A log record as one line of JSON; the fields of a request come in `record.fields`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=repr).decode()
        except UnicodeEncodeError:  # half a character, such as a file name that is no UTF-8
            import json

            return json.dumps(line, default=repr)


def set_up(level: str) -> None:
    """Sends our lines to standard error. Where the host has put its own handlers on the root logger, as Azure's worker
    does to tie lines to invocations, they go there instead."""
    LOGGER.setLevel(level.upper())
    if logging.getLogger().handlers:
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler:
                handler.setFormatter(JsonLines())
        return
    if not LOGGER.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        LOGGER.addHandler(handler)
        LOGGER.propagate = False
