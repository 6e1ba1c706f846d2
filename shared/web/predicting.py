"""The routes that predict: one picture, Vertex AI's many, the page's form."""

from __future__ import annotations

from werkzeug.wrappers import Response

from shared import sources
from shared.call import Call
from shared.errors import Failure, InvalidEnvelope
from shared.predictor import PictureFormat
from shared.served import ServedModel
from shared.service import Answer, Service
from shared.web import inputs, page, replies
from shared.web.exchange import Exchange, failure_of
from shared.web.metrics import Metrics


class Predicting:
    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._settings = service.settings

    def predict(self, exchange: Exchange, name: str | None = None) -> Response:
        """The named model's answer, or the default's, in the form that the caller asked for."""
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

    def form(self, exchange: Exchange) -> Response:
        """The page's form, posted without JavaScript: an HTML page with the drawn picture."""
        served = self._service.find(None)
        given = inputs.read(exchange.environ, [], self._settings.max_body_bytes, exchange.call)
        if isinstance(given, inputs.Envelope):
            raise InvalidEnvelope("the page's form sends one picture")
        answer = self._run(exchange, served, given, exchange.call, "jpeg")
        reply = replies.prediction_json(answer, served, exchange.call, given.echo)
        return replies.as_html(page.result(answer.picture, replies.MEDIA_TYPES["jpeg"], reply))

    def _each_instance(self, exchange: Exchange, served: ServedModel, envelope: inputs.Envelope) -> list[object]:
        """Every instance is answered, in order, by its reply or its error."""
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
                failure = failure_of(error, call)
                exchange.log["code"] = failure.code
                results.append(replies.failure_json(failure, call.request_id))
        exchange.log["instances"] = len(results)
        return results

    def _run(
        self, exchange: Exchange, served: ServedModel, given: inputs.Given, call: Call, picture: PictureFormat | None
    ) -> Answer:
        call.check()  # of many instances, those whose turn comes too late are not begun
        exchange.log |= {"model": served.name, "source": type(given.source).__name__.lower()}
        self._service.check(served, given.parameters, call)
        source = sources.read(given.source, self._settings, call)
        answer = self._service.predict(served, source, given.parameters, call, picture)
        height, width = answer.prediction.source_hw
        exchange.log |= {
            "bytes": len(source),
            "width": width,
            "height": height,
            "predictions": len(answer.prediction.predictions),
            "cold_start": answer.cold,
            "backend": answer.backend,
            "timings_ms": {stage: round(stage_ms, 3) for stage, stage_ms in call.stages_ms.items()},
        }
        self._metrics.count_prediction(served.name, call.stages_ms, cold=answer.cold)
        if answer.instead_of is not None:
            exchange.log["instead_of"] = answer.instead_of.code
            self._metrics.count_fallback(served.name, answer.instead_of.code)
        return answer
