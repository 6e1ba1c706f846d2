"""Our Google door, its own code, with the stubbed application behind it."""

from __future__ import annotations

from importlib import import_module

from tests.bench.doors.stubbed import application

main = import_module("main")
main.application = application  # type: ignore[attr-defined]
predict = main.predict
