"""One request on its way through the application."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl
from uuid import uuid4

from werkzeug.datastructures import EnvironHeaders

from shared.call import Call
from shared.errors import BadRequest, Failure, InternalError, OutOfMemory
from shared.web import logs

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from shared.memory import Share

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_MOST_QUERY_FIELDS = 100


class Exchange:
    """What is known of one request: its environ, headers and Call, the route that it took, and what its log line will
    say. A caller's own request id is kept where it is short and plain."""

    def __init__(self, environ: WSGIEnvironment, timeout_s: float, share: Share | None = None) -> None:
        self.environ = environ
        self.headers = EnvironHeaders(environ)
        asked = self.headers.get("X-Request-Id", "")
        self.call = Call(asked if REQUEST_ID.fullmatch(asked) else uuid4().hex, timeout_s)
        self.call.share = share
        self.route = ""
        self.log: dict[str, object] = {}

    @property
    def method(self) -> str:
        method: str = self.environ["REQUEST_METHOD"]
        return method

    @property
    def query(self) -> list[tuple[str, str]]:
        """Names and values in order. Raises BadRequest."""
        # WSGI hands bytes over as Latin-1; a query that is not percent-encoded is UTF-8 in practice.
        text = self.environ.get("QUERY_STRING", "").encode("latin-1", "replace").decode("utf-8", "replace")
        try:
            return parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_QUERY_FIELDS)
        except ValueError as error:
            raise BadRequest(
                f"the query has more than {_MOST_QUERY_FIELDS} fields", limit=_MOST_QUERY_FIELDS
            ) from error


def failure_of(error: Exception, call: Call) -> Failure:
    """The error as what the caller is told; what is none of theirs goes to the log with its trace."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("there is not enough memory for this request")
    logs.LOGGER.error("unexpected error", exc_info=error, extra={"fields": {"request_id": call.request_id}})
    return InternalError("the service failed on this request; its log tells more under the request id")
