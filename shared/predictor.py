"""The seam between the service and what makes a bundle's predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec

from shared.predictions import Prediction

if TYPE_CHECKING:
    from shared.call import Call

PictureFormat = Literal["png", "jpeg", "webp"]
Opened: TypeAlias = "Callable[[Call], None]"
"""Returns once the predictor is open; raises what opening raises, or Unavailable where that outlasts the call."""


class Drawn(msgspec.Struct, frozen=True):
    """A prediction, and the encoded picture that it is drawn on where one was asked for."""

    prediction: Prediction[Any]
    picture: bytes = b""


class Predictor(Protocol):
    """One bundle's way from an encoded picture to a prediction: in this process, or on a model server."""

    def parameters(self) -> dict[str, object]:
        """JSON Schema of what a request may ask for, with the defaults. Raises ConfigurationError, and where a model
        server has to tell, ServerUnreachable and its kin."""

    def parse(self, given: Mapping[str, object]) -> Any:
        """What a request asks for, over the defaults. Raises InvalidParameter, UnknownParameter, ConfigurationError."""

    def open(self, *, warm_up: bool) -> None:
        """Makes ready what it needs; `warm_up` makes one prediction on a grey picture, which shows what does not fit.
        Raises ConfigurationError, ModelOutputMismatch, ServerUnreachable and its kin. May be called again."""

    def ready(self) -> bool:
        """Whether a prediction asked for now would be made. Only for what is open."""

    def predict(self, source: bytes, params: Any, call: Call, picture: PictureFormat | None, opened: Opened) -> Drawn:
        """The prediction for one encoded picture, drawn on it too where `picture` says how; what needs no model may be
        done before waiting for `opened`. Raises Failure."""
