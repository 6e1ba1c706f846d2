"""What ends a command with one line."""

from __future__ import annotations


class Stopped(Exception):
    """The command cannot go on; the message says why."""


class Missing(Stopped):
    """What should be measured is not there."""
