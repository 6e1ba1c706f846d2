"""What a command ends with, beside model_server.failures."""

from __future__ import annotations

from model_server.failures import Stopped


class Missing(Stopped):
    """What should be measured is not there."""
