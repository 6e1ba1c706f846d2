"""The one error tree. Every failure that a caller can meet is one of these classes.

    Failure
    ├── BadRequest            400  InvalidJson InvalidBase64 InvalidMultipart InvalidParameter UnknownParameter
    │                              NoImage SeveralImages InvalidEnvelope UrlRefused UrlUnresolved
    ├── Unauthorized          401
    ├── NotFound              404  RouteNotFound ModelNotFound
    ├── MethodNotAllowed      405
    ├── NotAcceptable         406
    ├── UploadTooSlow         408
    ├── TooLarge              413  BodyTooLarge ImageTooLarge OutOfMemory
    ├── Unsupported           415  UnsupportedMediaType NotAnImage
    ├── ImageUndecodable      422
    ├── UrlFailed             424  UrlTimeout
    ├── TooManyRequests       429
    ├── InternalError         500
    ├── WrongAnswer           502  ModelOutputMismatch ServerFailed
    ├── Unavailable           503  ModelBroken AtCapacity Misconfigured ServerUnreachable ServerBusy
    └── DeadlineExceeded      504  ServerTimeout

    ConfigurationError: a setting or a model.json that cannot be honoured; never a caller's fault.

`code` is stable and part of the HTTP contract; `message` is a sentence for the person who called.
"""

from __future__ import annotations

from typing import ClassVar


class Failure(Exception):
    """A request that cannot be answered: an HTTP status, a stable code, a sentence, and the figures that help."""

    status: ClassVar[int]
    code: ClassVar[str]

    def __init__(self, message: str, *, retry_after_s: int | None = None, **figures: object) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.figures = figures


class BadRequest(Failure):
    """the request is malformed: its length, its headers or its connection"""

    status, code = 400, "bad_request"


class InvalidJson(BadRequest):
    """the body is not a JSON object"""

    code = "invalid_json"


class InvalidBase64(BadRequest):
    """the picture is not base64, or its data URI is not one"""

    code = "invalid_base64"


class InvalidMultipart(BadRequest):
    """the multipart body cannot be read"""

    code = "invalid_multipart"


class InvalidParameter(BadRequest):
    """a parameter has a value that it cannot have"""

    code = "invalid_parameter"


class UnknownParameter(BadRequest):
    """there is no such parameter"""

    code = "unknown_parameter"


class NoImage(BadRequest):
    """the request carries no picture"""

    code = "no_image"


class SeveralImages(BadRequest):
    """the request carries more than one picture"""

    code = "several_images"


class InvalidEnvelope(BadRequest):
    """`instances` or `parameters` are not of the form that Vertex AI uses"""

    code = "invalid_envelope"


class UrlRefused(BadRequest):
    """the URL may not be fetched: its scheme, host or address, or fetching is off"""

    code = "url_refused"


class UrlUnresolved(BadRequest):
    """the URL's host name is not known"""

    code = "url_unresolved"


class Unauthorized(Failure):
    """no key, or one that is not known"""

    status, code = 401, "unauthorized"


class NotFound(Failure):
    """there is no such thing"""

    status, code = 404, "not_found"


class RouteNotFound(NotFound):
    """there is no such path"""

    code = "route_not_found"


class ModelNotFound(NotFound):
    """there is no model of that name, or no default"""

    code = "model_not_found"


class MethodNotAllowed(Failure):
    """the path knows other methods"""

    status, code = 405, "method_not_allowed"

    def __init__(self, message: str, *, allowed: list[str]) -> None:
        super().__init__(message, allowed=allowed)
        self.allowed = allowed


class NotAcceptable(Failure):
    """the reply cannot be given in a form that Accept allows"""

    status, code = 406, "not_acceptable"


class UploadTooSlow(Failure):
    """the body did not arrive in time"""

    status, code = 408, "upload_too_slow"


class TooLarge(Failure):
    """too large"""

    status, code = 413, "too_large"


class BodyTooLarge(TooLarge):
    """the body, or the picture fetched by URL, has too many bytes"""

    code = "body_too_large"


class ImageTooLarge(TooLarge):
    """the picture has too many pixels"""

    code = "image_too_large"


class OutOfMemory(TooLarge):
    """there is not enough memory for this picture"""

    code = "out_of_memory"


class Unsupported(Failure):
    """of a type that is not taken"""

    status, code = 415, "unsupported"


class UnsupportedMediaType(Unsupported):
    """the Content-Type is none that is taken"""

    code = "unsupported_media_type"


class NotAnImage(Unsupported):
    """the bytes are not a picture of a known format"""

    code = "not_an_image"


class ImageUndecodable(Failure):
    """the picture is damaged, truncated or of a kind that cannot be decoded"""

    status, code = 422, "image_undecodable"


class UrlFailed(Failure):
    """the picture's URL answered wrongly"""

    status, code = 424, "url_failed"


class UrlTimeout(UrlFailed):
    """the picture's URL answered too late"""

    code = "url_timeout"


class TooManyRequests(Failure):
    """too many requests are waiting"""

    status, code = 429, "too_many_requests"


class InternalError(Failure):
    """a fault of the service; its log tells more under the request id"""

    status, code = 500, "internal_error"


class WrongAnswer(Failure):
    """the model failed on this picture"""

    status, code = 502, "wrong_answer"


class ModelOutputMismatch(WrongAnswer):
    """an output of the model does not fit its family"""

    code = "model_output_mismatch"


class ServerFailed(WrongAnswer):
    """the model server answered wrongly: with an error of its own, a broken reply or none"""

    code = "server_failed"


class Unavailable(Failure):
    """the model is still being loaded"""

    status, code = 503, "not_ready"


class ModelBroken(Unavailable):
    """the model cannot be loaded; the message says why"""

    code = "model_broken"


class Misconfigured(Unavailable):
    """a setting is wrong; the message says which"""

    code = "misconfigured"


class AtCapacity(Unavailable):
    """no request ended while this one could wait"""

    code = "at_capacity"


class ServerUnreachable(Unavailable):
    """the model server cannot be reached, or has failed too often and is left alone for a moment; it may be waking"""

    code = "server_unreachable"


class ServerBusy(Unavailable):
    """the model server says that it cannot answer now"""

    code = "server_busy"


class DeadlineExceeded(Failure):
    """the request's time is over"""

    status, code = 504, "deadline_exceeded"


class ServerTimeout(DeadlineExceeded):
    """the model server did not answer in time"""

    code = "server_timeout"


SERVER_FAILURES = (ServerFailed, ServerUnreachable, ServerBusy, ServerTimeout)
"""What goes wrong between this process and a model server; the picture and the request are not to blame."""


class ConfigurationError(Exception):
    """A setting or a model.json that cannot be honoured; the message names the field, its value and what is right."""


_NEVER_RAISED = (NotFound, TooLarge, Unsupported)  # only their kin are


def kinds() -> list[type[Failure]]:
    """Every class of failure that a caller can meet, by status."""
    found: list[type[Failure]] = []
    rest = Failure.__subclasses__()
    while rest:
        kind = rest.pop(0)
        rest = kind.__subclasses__() + rest
        if kind not in _NEVER_RAISED:
            found.append(kind)
    return sorted(found, key=lambda kind: kind.status)
