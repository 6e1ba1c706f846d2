"""The model server's side of forwarding pictures as they came: the same code as in a process that serves by itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shared.call import Call
from shared.embeddings import Memo
from shared.errors import Failure, InternalError
from shared.forwarding import Failed, Limits, Reply, Request
from shared.local import LocalPredictor
from shared.manifest import read_bundle

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.manifest import Bundle, NetworkSpec

_log = logging.getLogger("thinlens")
_MEMO_BYTES = 64_000_000  # of each process on the server; as much as one that serves by itself keeps unless told


class Forwarded:
    """Answers forwarded pictures for the bundle in `folder`, by networks that are open already. Raises
    ConfigurationError where the bundle cannot be read or does not fit its family."""

    def __init__(self, folder: Path, runs: Mapping[str, Run]) -> None:
        self._bundle = read_bundle(folder)
        self._runs = runs
        self._memo = Memo(_MEMO_BYTES)
        # Every function that forwards here has its own limits; there are not many of them.
        self._predictor = lru_cache(maxsize=16)(self._opened)
        self._opened(Limits(max_pixels=1))

    def answer(self, request: bytes, picture: bytes) -> tuple[bytes, bytes]:
        """`answer` and `drawn` for `request` and `picture` (see shared.forwarding). Whatever goes wrong with a request
        is in its answer."""
        try:
            asked = msgspec.json.decode(request, type=Request)
        except msgspec.DecodeError as error:
            return _failed(InternalError(f"the forwarded request cannot be read: {error}")), b""
        try:
            return self._answer(asked, picture)
        except Failure as failure:
            return _failed(failure), b""
        except Exception:  # noqa: BLE001 - a bug, or a family of the user's own; one request's failure is not the others'
            _log.exception("a forwarded picture failed", extra={"fields": {"request_id": asked.request_id}})
            return _failed(InternalError("the service failed; its log tells more under the request id")), b""

    def _answer(self, asked: Request, picture: bytes) -> tuple[bytes, bytes]:
        predictor = self._predictor(asked.limits)
        if not picture and "embedding" not in asked.given:
            return msgspec.json.encode(Reply(parameters=predictor.parameters(), bundle=self._bundle.fingerprint)), b""
        call = Call(asked.request_id, asked.timeout_s)
        drawn = predictor.predict(picture, predictor.parse(asked.given), call, asked.picture, _is_open)
        return msgspec.json.encode(Reply.of(drawn.prediction, call.stages_ms)), drawn.picture

    def _opened(self, limits: Limits) -> LocalPredictor:
        predictor = LocalPredictor(
            self._bundle,
            lambda: _Opened(self._bundle, self._runs),
            max_pixels=limits.max_pixels,
            usual=limits.usual,
            memo=self._memo,
        )
        predictor.open(warm_up=False)
        return predictor


class _Opened:
    """A Backend (see shared.backends) whose networks have been opened elsewhere."""

    def __init__(self, bundle: Bundle, runs: Mapping[str, Run]) -> None:
        specs = {name: bundle.network(name) for name in runs}
        self._runs = {(specs[name].bundle, specs[name].network): run for name, run in runs.items()}

    def open(self, network: NetworkSpec) -> Run:
        return self._runs[network.bundle, network.network]


def _is_open(_call: Call) -> None:
    """Nothing to wait for."""


def _failed(failure: Failure) -> bytes:
    return msgspec.json.encode(Reply(failed=Failed.of(failure)))
