"""Triton's own client, used as its documentation shows. `protocol` is http or grpc."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tests.bench.backends.inputs import pixels, sums
from tests.bench.backends.loop import Way


def call(protocol: str, url: str, model: str, side: str, *outputs: str) -> Way:
    """A tensor into a request, the request, its answer as arrays."""
    triton, picture = import_module(f"tritonclient.{protocol}"), pixels(int(side))
    client = triton.InferenceServerClient(url.partition("://")[2])

    def work() -> dict[str, Any]:
        return _answer(client, model, *_request(triton, picture, outputs))

    return Way(work, sums)


def prepared(protocol: str, url: str, model: str, side: str, *outputs: str) -> Way:
    """The same without putting the tensor into a request, which is done once and not for each picture."""
    triton, picture = import_module(f"tritonclient.{protocol}"), pixels(int(side))
    client = triton.InferenceServerClient(url.partition("://")[2])
    request = _request(triton, picture, outputs)
    return Way(lambda: _answer(client, model, *request), sums)


def _request(triton: Any, picture: Any, outputs: tuple[str, ...]) -> tuple[Any, list[Any]]:
    given = triton.InferInput("image", picture.shape, "UINT8")
    given.set_data_from_numpy(picture)
    return given, [triton.InferRequestedOutput(name) for name in outputs]


def _answer(client: Any, model: str, given: Any, wanted: list[Any]) -> dict[str, Any]:
    answer = client.infer(model, [given], outputs=wanted)
    return {output.name(): answer.as_numpy(output.name()) for output in wanted}
