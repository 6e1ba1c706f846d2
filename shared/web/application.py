"""The WSGI application: routes, and the one place where errors become replies."""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from uuid import uuid4

from werkzeug.datastructures import EnvironHeaders
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.wrappers import Response

from shared import __version__, parameters, sources
from shared.call import Call
from shared.errors import (
    BadRequest,
    ConfigurationError,
    Failure,
    InternalError,
    InvalidEnvelope,
    MethodNotAllowed,
    Misconfigured,
    ModelBroken,
    OutOfMemory,
    RouteNotFound,
    Unavailable,
)
from shared.service import Answer, PictureFormat, ServedModel, Service
from shared.settings import Settings
from shared.web import access, inputs, logs, page, replies
from shared.web.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_OPEN = frozenset(("index", "asset", "health", "ready", "version", "preflight"))
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_MOST_QUERY_FIELDS = 100
_NOT_READY_RETRY_S = 2
_MISCONFIGURED_RETRY_S = 60
_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_CACHED = "public, max-age=3600"


class Exchange:
    """One request on its way through the application."""

    def __init__(self, environ: WSGIEnvironment, timeout_s: float) -> None:
        self.environ = environ
        self.headers = EnvironHeaders(environ)
        asked = self.headers.get("X-Request-Id", "")
        self.call = Call(asked if _REQUEST_ID.fullmatch(asked) else uuid4().hex, timeout_s)
        self.route = ""
        self.log: dict[str, object] = {}

    @property
    def query(self) -> list[tuple[str, str]]:
        # WSGI hands bytes over as Latin-1; a query that is not percent-encoded is UTF-8 in practice.
        text = self.environ.get("QUERY_STRING", "").encode("latin-1", "replace").decode("utf-8", "replace")
        try:
            return parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_QUERY_FIELDS)
        except ValueError as error:
            raise BadRequest(
                f"the query has more than {_MOST_QUERY_FIELDS} fields", limit=_MOST_QUERY_FIELDS
            ) from error


class Application:
    """The same paths on every host. Holds the service; knows no cloud."""

    def __init__(self, settings: Settings) -> None:
        logs.set_up(settings.log_level)
        self._settings = settings
        self._service = Service(settings)
        self._metrics = Metrics()
        self._urls = _urls(settings)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        exchange = Exchange(environ, self._settings.timeout_s)
        endpoint = ""
        try:
            endpoint, arguments = self._match(exchange)
            response = self._answer(exchange, endpoint, arguments)
        except Exception as error:  # noqa: BLE001 - the last place where a bug can become a reply and a log line
            response = self._failed(exchange, endpoint, _failure(error, exchange.call))
        self._finish(exchange, response)
        return response(environ, start_response)

    def _match(self, exchange: Exchange) -> tuple[str, dict[str, Any]]:
        environ = exchange.environ
        path = environ.get("PATH_INFO", "") or "/"
        adapter: MapAdapter = self._urls.bind("localhost", path_info=path)
        method = environ["REQUEST_METHOD"]
        try:
            rule, arguments = adapter.match(method=method, return_rule=True)
        except WrongMethod as error:
            allowed = sorted({*(error.valid_methods or ()), "OPTIONS"})
            if method == "OPTIONS":
                return "preflight", {"allowed": allowed}
            raise MethodNotAllowed(
                f"{method} is not possible here; {', '.join(allowed)} is", allowed=allowed
            ) from error
        except HTTPException as error:
            raise RouteNotFound("there is no such path; /openapi.json lists them") from error
        exchange.route = rule.rule
        return rule.endpoint, dict(arguments)

    def _answer(self, exchange: Exchange, endpoint: str, arguments: dict[str, Any]) -> Response:
        if endpoint not in _OPEN:
            access.check_key(exchange.headers, self._settings.api_keys)
        answer: Callable[..., Response] = getattr(self, f"_{endpoint}")
        return answer(exchange, **arguments)

    def _preflight(self, exchange: Exchange, allowed: list[str]) -> Response:
        return Response(status=204, headers={"Allow": ", ".join(allowed)})

    def _index(self, exchange: Exchange) -> Response:
        return _html(page.index())

    def _asset(self, exchange: Exchange, name: str) -> Response:
        found = page.asset(name)
        if found is None:
            raise RouteNotFound("there is no such file")
        content, content_type = found
        response = Response(content, content_type=content_type)
        response.headers["Cache-Control"] = _CACHED
        return response

    def _health(self, exchange: Exchange) -> Response:
        return replies.as_json({"status": "alive"})

    def _ready(self, exchange: Exchange) -> Response:
        state, reason = self._service.state()
        content: dict[str, object] = {"state": state} | ({"reason": reason} if reason else {})
        if state == "ready":
            return replies.as_json(content)
        kind = ModelBroken if state == "broken" else Unavailable
        failure = kind(reason or f"the model is {state.replace('_', ' ')}", retry_after_s=_NOT_READY_RETRY_S)
        return replies.failure_response(failure, exchange.call.request_id, beside=content)

    def _version(self, exchange: Exchange) -> Response:
        return replies.as_json(
            {
                "name": "thinlens",
                "version": __version__,
                "backend": self._settings.backend,
                "python": platform.python_version(),
            }
        )

    def _metrics_text(self, exchange: Exchange) -> Response:
        content, content_type = self._metrics.exposition(*self._service.admission.load)
        return Response(content, content_type=content_type)

    def _openapi(self, exchange: Exchange) -> Response:
        from shared.web.openapi import document

        return replies.as_json(document(self._service))

    def _models(self, exchange: Exchange) -> Response:
        return replies.as_json({"models": [_described(served) for served in self._service.models.values()]})

    def _model(self, exchange: Exchange, name: str) -> Response:
        return replies.as_json(_described(self._service.find(name)))

    def _predict(self, exchange: Exchange, name: str | None = None) -> Response:
        served = self._service.find(name)
        given = inputs.read(exchange.environ, exchange.query, self._settings.max_body_bytes, exchange.call)
        accept = exchange.headers.get("Accept")
        if isinstance(given, inputs.Envelope):
            replies.chosen_format(None, accept, only=("json",))
            return replies.as_json({"predictions": self._each_instance(exchange, served, given)})
        chosen = replies.chosen_format(given.format, accept)
        answer = self._run(exchange, served, given, exchange.call, None if chosen == "json" else chosen)
        if chosen == "json":
            return replies.as_json(replies.prediction_json(answer, served, exchange.call, given.echo))
        return Response(answer.picture, content_type=replies.MEDIA_TYPES[chosen])

    def _each_instance(self, exchange: Exchange, served: ServedModel, envelope: inputs.Envelope) -> list[object]:
        """Vertex AI's form: every instance is answered, in order, by its reply or its error."""
        results: list[object] = []
        for given in envelope.instances:
            call = exchange.call.part()
            try:
                if isinstance(given, Failure):
                    raise given
                replies.chosen_format(given.format, None, only=("json",))
                answer = self._run(exchange, served, given, call, None)
                results.append(replies.prediction_json(answer, served, call, given.echo))
            except Exception as error:  # noqa: BLE001 - one instance's failure, or bug, is not the others'
                failure = _failure(error, call)
                exchange.log["code"] = failure.code
                results.append(replies.failure_json(failure, call.request_id))
        exchange.log["instances"] = len(results)
        return results

    def _form(self, exchange: Exchange) -> Response:
        """The page's form, posted without JavaScript: an HTML page with the drawn picture, or with what went wrong."""
        served = self._service.find(None)
        given = inputs.read(exchange.environ, [], self._settings.max_body_bytes, exchange.call)
        if isinstance(given, inputs.Envelope):
            raise InvalidEnvelope("the page's form sends one picture")
        answer = self._run(exchange, served, given, exchange.call, "jpeg")
        reply = replies.prediction_json(answer, served, exchange.call, given.echo)
        return _html(page.result(answer.picture, replies.MEDIA_TYPES["jpeg"], reply))

    def _run(
        self, exchange: Exchange, served: ServedModel, given: inputs.Given, call: Call, picture: PictureFormat | None
    ) -> Answer:
        exchange.log |= {"model": served.name, "source": type(given.source).__name__.lower()}
        params = parameters.parse(served.defaults, given.parameters)
        source = sources.read(given.source, self._settings, call)
        answer = self._service.predict(served, source, params, call, picture)
        height, width = answer.prediction.source_hw
        exchange.log |= {
            "bytes": len(source),
            "width": width,
            "height": height,
            "predictions": len(answer.prediction.predictions),
            "cold_start": answer.cold,
            "timings_ms": {stage: round(stage_ms, 3) for stage, stage_ms in call.stages_ms.items()},
        }
        self._metrics.count_prediction(served.name, call.stages_ms, cold=answer.cold)
        return answer

    def _failed(self, exchange: Exchange, endpoint: str, failure: Failure) -> Response:
        exchange.log["code"] = failure.code
        request_id = exchange.call.request_id
        response = replies.failure_response(failure, request_id)
        if endpoint == "form":  # for a person, with the same headers
            written = _html(page.failure(failure.status, failure.code, failure.message, request_id), failure.status)
            response.set_data(written.get_data())
            response.headers.update(written.headers)
        return response

    def _finish(self, exchange: Exchange, response: Response) -> None:
        """The headers of every reply, the log line and the counts."""
        call, environ, settings = exchange.call, exchange.environ, self._settings
        response.headers["X-Request-Id"] = call.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        preflight = environ["REQUEST_METHOD"] == "OPTIONS"
        origin = exchange.headers.get("Origin")
        response.headers.extend(access.cors_headers(origin, settings.cors_origins, preflight=preflight))
        elapsed_ms = call.elapsed_ms
        code = str(exchange.log.get("code", ""))
        self._metrics.count(exchange.route or "(none)", response.status_code, code, elapsed_ms / 1e3)
        level = logging.ERROR if response.status_code >= 500 else logging.INFO
        if logs.LOGGER.isEnabledFor(level):
            fields = {
                "request_id": call.request_id,
                "method": environ["REQUEST_METHOD"],
                "route": exchange.route,
                "status": response.status_code,
                "duration_ms": round(elapsed_ms, 3),
                **exchange.log,
            }
            logs.LOGGER.log(level, "request", extra={"fields": fields})


def _failure(error: Exception, call: Call) -> Failure:
    """The error as what the caller is told; what is none of theirs goes to the log with its trace."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("there is not enough memory for this request")
    logs.LOGGER.error("unexpected error", exc_info=error, extra={"fields": {"request_id": call.request_id}})
    return InternalError("the service failed on this request; its log tells more under the request id")


def _html(content: bytes, status: int = 200) -> Response:
    response = Response(content, status, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _described(served: ServedModel) -> dict[str, object]:
    """One entry of /models."""
    try:
        model, defaults = served.model, served.defaults
    except ModelBroken:
        return {"name": served.name, "backend": served.backend, "ready": False, "reason": served.reason}
    return {
        "name": served.name,
        "task": model.task,
        "family": model.family,
        "backend": served.backend,
        "ready": served.state == "ready",
        "licence": model.licence,
        "parameters": parameters.schema(defaults),
        **({"reason": served.reason} if served.reason else {}),
    }


def _urls(settings: Settings) -> Map:
    """The paths; Vertex AI names its own two, which win over ours."""
    rules = {
        "/": ("index", ["GET"]),
        "/static/<path:name>": ("asset", ["GET"]),
        "/health": ("health", ["GET"]),
        "/ready": ("ready", ["GET"]),
        "/version": ("version", ["GET"]),
        "/metrics": ("metrics_text", ["GET"]),
        "/openapi.json": ("openapi", ["GET"]),
        "/models": ("models", ["GET"]),
        "/models/<name>": ("model", ["GET"]),
        "/predict": ("predict", ["GET", "POST"]),
        "/models/<name>/predict": ("predict", ["GET", "POST"]),
    }
    if settings.health_route:
        rules[settings.health_route] = ("ready", ["GET"])
    if settings.predict_route:
        rules[settings.predict_route] = ("predict", ["GET", "POST"])
    form = [] if settings.predict_route == "/" else [Rule("/", endpoint="form", methods=["POST"])]
    others = [Rule(path, endpoint=endpoint, methods=methods) for path, (endpoint, methods) in rules.items()]
    return Map([*form, *others], strict_slashes=False, merge_slashes=False)


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
