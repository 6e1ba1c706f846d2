"""Our application with the model replaced by a canned prediction. Everything else is the real thing."""

from __future__ import annotations

from typing import Any

from shared.call import Call
from shared.predictions import Detection, Prediction
from shared.settings import Settings
from shared.web.application import Application

_FOUND = tuple(
    Detection("person", 1, round(0.93 - rank / 20, 6), (10.5 + rank, 20.25, 310.125, 420.75)) for rank in range(6)
)
_CANNED = Prediction((720, 1280), _FOUND)


class _Canned:
    """A Predictor (see shared.service) that does not look."""

    def predict(self, source: bytes, params: Any, call: Call) -> Prediction:
        return _CANNED


def stubbed() -> Application:
    made = Application(Settings.load())
    for served in made.service.models.values():
        served.open()
        served.predictor = _Canned  # type: ignore[method-assign]
    return made


application = stubbed()
