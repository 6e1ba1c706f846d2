"""What ends a command with one line."""

from __future__ import annotations

from docker.failures import Stopped

__all__ = ["Missing", "Stopped"]


class Missing(Stopped):
    """What should be measured is not there."""
