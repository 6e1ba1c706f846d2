"""Predictions made on a model server, from the picture as it came: neither pixels nor a framework in this process."""

from __future__ import annotations

import logging
from base64 import b64decode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from shared import encoded
from shared.call import Call
from shared.errors import ConfigurationError, ImageUndecodable, ServerFailed
from shared.forwarding import ANSWER, DRAWN, INPUTS, OUTPUTS, PICTURE, REQUEST, Limits, Reply, Request
from shared.manifest import NetworkSpec
from shared.open_inference import Tensor
from shared.open_inference_http import OpenInferenceHttp, ServedNetwork
from shared.predictor import Drawn, Opened, PictureFormat
from shared.retries import OPEN_LIMIT_S
from shared.server_http import ServerHttp

if TYPE_CHECKING:
    from shared.manifest import Bundle
    from shared.settings import Settings

_log = logging.getLogger("thinlens")
# A grey PNG of 64 x 64 pixels.
_GREY = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAK0lEQVR42u3MMREAAAgEoNfkRjeEmwcBqMlNRyAQCAQCgUAgEAgEAsHzYAFAdAEA"
    "rKmlZAAAAABJRU5ErkJggg=="
)
_MARGIN_S = 0.05  # the server gives up before this process does, and says why


class RemotePredictor:
    """A Predictor (see shared.predictor) that has a model of the bundle's own name do everything."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        model = bundle.model
        self._bundle = bundle
        self._network = NetworkSpec(model.name, model.version, "*", bundle.folder, INPUTS, OUTPUTS, {}, model.name)
        self._limits = Limits(settings.max_pixels, settings.usual)
        self._limit_s = settings.backend_timeout_s
        self._server = OpenInferenceHttp(ServerHttp.of(settings))
        self._served: ServedNetwork | None = None
        self._parameters: dict[str, object] | None = None

    def parameters(self) -> dict[str, object]:
        if self._parameters is None:
            self._parameters = self._described()
        return self._parameters

    def parse(self, given: Mapping[str, object]) -> Any:
        """`given` as it is: the model server knows the defaults and refuses what cannot be."""
        return given

    def open(self, *, warm_up: bool) -> None:
        self._served = self._server.open(self._network)
        self._parameters = self._described()
        if warm_up:
            self._ask(_GREY, Call("warm-up", self._limit_s), {}, None)

    def ready(self) -> bool:
        return self._served is not None and self._served.ready()

    def predict(self, source: bytes, params: Any, call: Call, picture: PictureFormat | None, opened: Opened) -> Drawn:
        if source:
            self._check(source)
        opened(call)
        with call.stage("forward"):
            reply, drawn = self._ask(source, call, params, picture)
            if picture is not None and not drawn:
                raise ServerFailed("the model server's answer is not whole")
        for stage, stage_ms in reply.stages_ms.items():
            call.stages_ms[f"server_{stage}"] = stage_ms
        return Drawn(reply.found(self._bundle.model.task), drawn)

    def _described(self) -> dict[str, object]:
        """What the server says may be asked for. Raises ConfigurationError where it has another bundle of this name."""
        reply, _ = self._ask(b"", Call("parameters", OPEN_LIMIT_S), {}, None)
        if reply.bundle != self._bundle.fingerprint:
            raise ConfigurationError(
                f"{self._bundle.model.name}: the model server has another bundle of this name: its version, labels, "
                "family, preprocess or postprocess differ"
            )
        return reply.parameters or {}

    def _check(self, source: bytes) -> None:
        """What the bytes show is not worth sending; the model server looks at all of it again."""
        format_ = encoded.sniff(source)
        try:
            encoded.checked(source, format_, self._limits.max_pixels)
        except encoded.ENDED as error:
            raise ImageUndecodable("the picture is damaged or truncated and cannot be decoded") from error

    def _ask(
        self, source: bytes, call: Call, given: Mapping[str, object], picture: PictureFormat | None
    ) -> tuple[Reply, bytes]:
        timeout_s = max(min(call.remaining_s, self._limit_s) - _MARGIN_S, 0.0)
        request = msgspec.json.encode(Request(call.request_id, timeout_s, self._limits, dict(given), picture))
        tensors = [
            Tensor(spec.name, spec.dtype, (len(data),), data) for spec, data in ((PICTURE, source), (REQUEST, request))
        ]
        served = self._served = self._served or self._server.open(self._network)
        outputs = served.infer(tensors, call)
        try:
            reply = msgspec.json.decode(bytes(outputs[ANSWER.name].data), type=Reply)
            drawn = bytes(outputs[DRAWN.name].data)
        except (LookupError, TypeError, ValueError, RecursionError, msgspec.DecodeError) as error:
            raise ServerFailed("the model server's answer cannot be read") from error
        if reply.failed is not None:
            failure = reply.failed.failure()
            if isinstance(failure, ServerFailed):
                fields = {"request_id": call.request_id, "code": reply.failed.code}
                _log.warning(
                    "%s: the model server failed: %s",
                    self._bundle.model.name,
                    reply.failed.message,
                    extra={"fields": fields},
                )
            raise failure
        return reply, drawn
