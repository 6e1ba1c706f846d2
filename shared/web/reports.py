"""The routes that tell of the service itself: the page and its files, how it stands, what it serves."""

from __future__ import annotations

import platform
from contextlib import suppress

import msgspec
from werkzeug.wrappers import Response

from shared import __version__, build, devices
from shared.errors import Failure, ModelBroken, ModelNotFound, RouteNotFound, Unavailable
from shared.served import ServedModel
from shared.service import Service
from shared.web import page, replies
from shared.web.exchange import Exchange
from shared.web.metrics import Metrics

_NOT_READY_RETRY_S = 2


class Reports:
    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    def index(self, _exchange: Exchange) -> Response:
        return replies.as_html(page.index(self._default_task()))

    def asset(self, exchange: Exchange, name: str) -> Response:
        """A file of the page. Asked for anew each time, so that an upgrade never mixes old and new, and sent only
        where it has changed."""
        found = page.asset(name)
        if found is None:
            raise RouteNotFound("there is no such file")
        content, content_type = found
        response = Response(content, content_type=content_type)
        response.headers["Cache-Control"] = "no-cache"
        response.add_etag()
        return response.make_conditional(exchange.environ)

    def health(self, _exchange: Exchange) -> Response:
        return replies.as_json({"status": "alive"})

    def ready(self, exchange: Exchange) -> Response:
        state, reason, backend = self._service.standing()
        content = {"state": state, "backend": backend, **({"reason": reason} if reason else {})}
        if state == "ready":
            return replies.as_json(content)
        kind = ModelBroken if state == "broken" else Unavailable
        failure = kind(reason or f"the model is {state.replace('_', ' ')}", retry_after_s=_NOT_READY_RETRY_S)
        return replies.failure_response(failure, exchange.call.request_id, beside=content)

    def version(self, _exchange: Exchange) -> Response:
        settings = self._service.settings
        own = {"backend": settings.backend, "forward": settings.forward, "device": self._device()}
        built = {"name": "thinlens", "version": __version__, "git_sha": build.git_sha()}
        return replies.as_json({**built, "python": platform.python_version(), **own})

    def metrics(self, _exchange: Exchange) -> Response:
        content, content_type = self._metrics.exposition(*self._service.admission.load, self._device())
        return Response(content, content_type=content_type)

    def _device(self) -> dict[str, str | int]:
        """What runs the models in this process: its name, and a GPU's memory."""
        settings = self._service.settings
        return devices.describe(settings.device, settings.visible_devices)

    def openapi(self, _exchange: Exchange) -> Response:
        from shared.web.openapi import document

        return replies.as_json(document(self._service))

    def models(self, _exchange: Exchange) -> Response:
        """What is served, the default first."""
        listed = sorted(self._service.models.values(), key=lambda served: not self._is_default(served))
        return replies.as_json({"models": [self._listed(served) for served in listed]})

    def model(self, _exchange: Exchange, name: str) -> Response:
        served = self._service.find(name)
        return replies.as_json(self._listed(served) | _profiled(served))

    def _listed(self, served: ServedModel) -> dict[str, object]:
        return _described(served) | {"default": self._is_default(served)}

    def _is_default(self, served: ServedModel) -> bool:
        return served.name == self._service.default

    def _default_task(self) -> str:
        with suppress(ModelNotFound, ModelBroken):
            return self._service.find(None).model.task
        return ""


def _profiled(served: ServedModel) -> dict[str, object]:
    """What the bundle was measured to take, where it was."""
    with suppress(ModelBroken):
        profile = served.model.profile
        return {} if profile is None else {"profile": msgspec.to_builtins(profile)}
    return {}


def _described(served: ServedModel) -> dict[str, object]:
    """One entry of /models."""
    told: dict[str, object] = {"name": served.name, "backend": served.backend, "ready": served.state == "ready"}
    with suppress(ModelBroken):
        model = served.model
        told |= {"task": model.task, "family": model.family, "licence": model.licence}
    try:
        told["parameters"] = served.parameters()
    except Failure as failure:
        told |= {"ready": False, "reason": served.reason or failure.message}
    return told
