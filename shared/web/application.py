"""The WSGI application: paths, and the one place where errors become replies."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from shared.errors import ConfigurationError, Failure, Misconfigured
from shared.service import Service
from shared.settings import Settings
from shared.web import access, logs, page, replies
from shared.web.body import discard_unread
from shared.web.exchange import Exchange, failure_of
from shared.web.metrics import Metrics
from shared.web.paths import Endpoint, Paths
from shared.web.predicting import Predicting
from shared.web.reports import Reports

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_MISCONFIGURED_RETRY_S = 60
_LEVELS = {503: logging.WARNING}  # come again: loading, or full


class Application:
    """The same paths on every host, over the service of this process. Knows no cloud."""

    def __init__(self, settings: Settings) -> None:
        logs.set_up(settings.log_level)
        self._settings = settings
        self._metrics = Metrics()
        self.service = Service(settings)
        self.paths = _paths(settings, Reports(self.service, self._metrics), Predicting(self.service, self._metrics))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        share = self.service.memory.share()
        exchange = Exchange(environ, self._settings.timeout_s, share)
        endpoint = None
        try:
            endpoint, arguments = self._endpoint(exchange)
            if endpoint.needs_key:
                access.check_key(exchange.headers, self._settings.api_keys)
            response = endpoint.answer(exchange, **arguments)
        except Exception as error:  # noqa: BLE001 - the last place where a bug can become a reply and a log line
            response = _failed(exchange, endpoint, failure_of(error, exchange.call))
        discard_unread(environ)
        self._finish(exchange, response)
        share.keep(response.calculate_content_length() or 0)
        response.call_on_close(share.release)
        return response(environ, start_response)

    def _endpoint(self, exchange: Exchange) -> tuple[Endpoint, dict[str, Any]]:
        found = self.paths.find(exchange.environ.get("PATH_INFO", ""))
        if exchange.method == "OPTIONS":
            return Endpoint(_preflight, needs_key=False), {"allowed": found.allowed}
        endpoint = found.endpoint(exchange.method)
        exchange.route = found.template
        return endpoint, found.arguments

    def _finish(self, exchange: Exchange, response: Response) -> None:
        """The headers of every reply, the log line and the counts."""
        call, settings = exchange.call, self._settings
        response.headers["X-Request-Id"] = call.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        preflight = exchange.method == "OPTIONS"
        origin = exchange.headers.get("Origin")
        response.headers.extend(access.cors_headers(origin, settings.cors_origins, preflight=preflight))
        elapsed_ms = call.elapsed_ms
        code = str(exchange.log.get("code", ""))
        self._metrics.count(exchange.route or "(none)", response.status_code, code, elapsed_ms / 1e3)
        level = _LEVELS.get(response.status_code, logging.ERROR if response.status_code >= 500 else logging.INFO)
        if logs.LOGGER.isEnabledFor(level):
            fields = {
                "request_id": call.request_id,
                "method": exchange.method,
                "route": exchange.route,
                "status": response.status_code,
                "duration_ms": round(elapsed_ms, 3),
                **exchange.log,
            }
            logs.LOGGER.log(level, "request", extra={"fields": fields})


def _paths(settings: Settings, reports: Reports, predicting: Predicting) -> Paths:
    """The paths; Vertex AI names its own two, which win over ours."""
    predict = Endpoint(predicting.predict)
    predictions = {"GET": predict, "POST": predict}
    ready = {"GET": Endpoint(reports.ready, needs_key=False)}
    table = {
        "/": {
            "GET": Endpoint(reports.index, needs_key=False),
            "POST": Endpoint(predicting.form, for_person=True),
        },
        "/static/{name...}": {"GET": Endpoint(reports.asset, needs_key=False)},
        "/health": {"GET": Endpoint(reports.health, needs_key=False)},
        "/ready": ready,
        "/version": {"GET": Endpoint(reports.version, needs_key=False)},
        "/metrics": {"GET": Endpoint(reports.metrics)},
        "/openapi.json": {"GET": Endpoint(reports.openapi)},
        "/models": {"GET": Endpoint(reports.models)},
        "/models/{name}": {"GET": Endpoint(reports.model)},
        "/predict": predictions,
        "/models/{name}/predict": predictions,
    }
    if settings.predict_route:
        table[settings.predict_route] = predictions
    if settings.health_route:
        table[settings.health_route] = table.get(settings.health_route, {}) | ready
    return Paths(table)


def _preflight(_exchange: Exchange, allowed: list[str]) -> Response:
    response = Response(status=204, headers={"Allow": ", ".join(allowed)})
    del response.headers["Content-Type"]
    return response


def _failed(exchange: Exchange, endpoint: Endpoint | None, failure: Failure) -> Response:
    exchange.log["code"] = failure.code
    request_id = exchange.call.request_id
    response = replies.failure_response(failure, request_id)
    if endpoint is not None and endpoint.for_person:  # the same headers under another body
        written = page.failure(failure.status, failure.code, failure.message, request_id)
        replies.make_html(response, written)
    return response


_lock = Lock()
_built: Application | None = None


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application of this process's environment, built on first use: a server that forks after importing this
    finds nothing opened yet, and a wrong setting is reported as what it is."""
    global _built  # noqa: PLW0603 - the one build-once state of the process
    if _built is None:
        with _lock:
            if _built is None:
                try:
                    _built = Application(Settings.load())
                except ConfigurationError as error:
                    return _misconfigured(error, environ, start_response)
    return _built(environ, start_response)


def _misconfigured(
    error: ConfigurationError, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    logs.set_up("error")
    logs.LOGGER.error("the service is misconfigured: %s", error)
    request_id = Exchange(environ, 0).call.request_id
    path = environ.get("PATH_INFO")
    if path == "/health":
        response = replies.as_json({"status": "alive"})
    else:
        failure = Misconfigured(f"the service is misconfigured: {error}", retry_after_s=_MISCONFIGURED_RETRY_S)
        state = {"state": "broken", "reason": str(error)} if path == "/ready" else None
        response = replies.failure_response(failure, request_id, beside=state)
    response.headers["X-Request-Id"] = request_id
    return response(environ, start_response)
