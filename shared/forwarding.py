"""What travels when a picture is forwarded as it came: the messages beside it, and failures as data.

On the model server a model of the bundle's own name takes two tensors of bytes, `picture` and `request`, and gives two,
`answer` and `drawn`; `request` and `answer` are these structs as JSON. Knows neither numpy nor Pillow.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared import errors
from shared.errors import Failure, ServerFailed
from shared.parameters import Usual
from shared.predictions import Prediction, kind_of
from shared.predictor import PictureFormat
from shared.tensors import TensorSpec

PICTURE, REQUEST = TensorSpec("picture", "uint8", (None,)), TensorSpec("request", "uint8", (None,))
ANSWER, DRAWN = TensorSpec("answer", "uint8", (None,)), TensorSpec("drawn", "uint8", (None,))
INPUTS, OUTPUTS = (PICTURE, REQUEST), (ANSWER, DRAWN)


class Limits(msgspec.Struct, frozen=True):
    """What the forwarding process holds its callers to, and what it would have them ask for."""

    max_pixels: int
    usual: Usual = Usual()


class Request(msgspec.Struct, frozen=True):
    """A picture to answer with the parameters as the caller gave them; without a picture, and without an `embedding` in
    its place, a question after them."""

    request_id: str
    timeout_s: float
    limits: Limits
    given: dict[str, Any] = {}
    picture: PictureFormat | None = None


class Failed(msgspec.Struct, frozen=True):
    """A Failure as data."""

    code: str
    message: str
    retry_after_s: int | None = None
    figures: dict[str, Any] = {}

    @classmethod
    def of(cls, failure: Failure) -> Failed:
        return cls(failure.code, failure.message, failure.retry_after_s, failure.figures)

    def failure(self) -> Failure:
        """The failure, of the class that has this code; a fault of the model server is one of its answer."""
        kind = _BY_CODE.get(self.code)
        if kind is None:
            return ServerFailed("the model server failed; its log tells more under the request id")
        figures = {name: value for name, value in self.figures.items() if name not in _OWN}
        return kind(self.message, retry_after_s=self.retry_after_s, **figures)


class Reply(msgspec.Struct, frozen=True):
    """One of: a prediction with the time of each stage; what may be asked for, as JSON Schema, and the fingerprint of
    the bundle that is served; a failure."""

    prediction: msgspec.Raw = msgspec.Raw(b"null")
    stages_ms: dict[str, float] = {}
    parameters: dict[str, Any] | None = None
    bundle: str | None = None
    failed: Failed | None = None

    @classmethod
    def of(cls, prediction: Prediction[Any], stages_ms: dict[str, float]) -> Reply:
        return cls(msgspec.Raw(msgspec.json.encode(prediction)), stages_ms)

    def found(self, task: str) -> Prediction[Any]:
        """The prediction of a bundle for `task`. Raises ServerFailed where there is none."""
        try:
            prediction: Prediction[Any] = msgspec.json.decode(self.prediction, type=kind_of(task))
        except (msgspec.DecodeError, RecursionError) as error:
            raise ServerFailed("the model server's answer cannot be read") from error
        if min(prediction.source_hw) < 1:
            raise ServerFailed("the model server's answer is not whole")
        return prediction


_NOT_OF_PICTURES = (errors.MethodNotAllowed, errors.InternalError)
_BY_CODE = {kind.code: kind for kind in errors.kinds() if kind not in _NOT_OF_PICTURES}
_OWN = ("self", "message", "retry_after_s")
