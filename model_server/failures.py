"""How a command fails: one sentence for the person who typed it."""

from __future__ import annotations


class Stopped(Exception):
    """A command that cannot go on; the message is one line that names the thing, what was found and what helps."""
