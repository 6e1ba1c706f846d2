"""Our application with the model replaced by a canned prediction. Everything else is the real thing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.call import Call
from shared.predictions import Detection, Prediction
from shared.predictor import Drawn, Opened, PictureFormat
from shared.served import ServedModel
from shared.settings import Settings
from shared.web.application import Application

_FOUND = tuple(
    Detection("person", 1, round(0.93 - rank / 20, 6), (10.5 + rank, 20.25, 310.125, 420.75)) for rank in range(6)
)
_CANNED = Prediction((720, 1280), _FOUND)


class _Canned:
    """A Predictor (see shared.predictor) that does not look."""

    def parameters(self) -> dict[str, object]:
        return {}

    def parse(self, given: Mapping[str, object]) -> Any:
        return given

    def open(self, *, warm_up: bool) -> None:
        pass

    def ready(self) -> bool:
        return True

    def predict(self, source: bytes, params: Any, call: Call, picture: PictureFormat | None, opened: Opened) -> Drawn:
        return Drawn(_CANNED)


def stubbed() -> Application:
    settings = Settings.load()
    made = Application(settings)
    for name in made.service.models:
        served = ServedModel(Path(settings.models) / name, settings.backend, lambda _bundle: _Canned())
        served.open()
        made.service.models[name] = served
    return made


application = stubbed()
