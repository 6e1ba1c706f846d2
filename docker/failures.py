"""What ends a command with one line."""

from __future__ import annotations


class Stopped(Exception):
    """Cannot be done; the message says why and what was expected."""
