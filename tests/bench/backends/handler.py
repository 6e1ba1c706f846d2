"""A request forwarded to a model server against the same request answered here, the model's own work left out.

One bundle, whose network finds the same things in every picture at next to no cost: here by ONNX Runtime, there in a
real Triton. Triton's own client asks that very server, so that no stub of ours can favour our client. What a forwarded
request may cost is what surrounds the model where it is embedded (that request less ONNX Runtime's own call) and one
plain call of that client. Both calls are made after the decoding of that picture, which is not counted: one that meets
a server and caches busy with nothing else is quicker than any inside a request. Requests are made of the application
without a socket: the doors are the same on both sides.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from shared.host import cores
from tests.bench.arms import Sample, Samples
from tests.bench.backends.forwarding import OUTPUTS, PROTOCOLS, url_of
from tests.bench.backends.networks import SIDE, write_constant
from tests.bench.backends.serving import triton
from tests.bench.backends.sides import Side, measured, side
from tests.bench.pictures import photo
from tests.bench.report import Result, Row, row

_CALLS, _GOES = 10, 3
_TARGET = 1.05
_EMBEDDED, _NETWORK = "embedded request", "session.run"


def run(rounds: int) -> Result:
    with TemporaryDirectory() as scratch:
        bundle, picture = write_constant(Path(scratch) / "constant"), Path(scratch) / "photo.jpg"
        picture.write_bytes(photo(SIDE, SIDE))
        served = {"models": str(bundle), "backend": "triton"}
        requests: dict[str, Side] = {_EMBEDDED: side("ours:handler", str(picture), models=str(bundle))}
        after = ("--after", str(picture))
        graph = str(bundle / "model.onnx")
        calls: dict[str, Side] = {_NETWORK: side("raw_onnx:call", graph, str(cores()), str(SIDE), *OUTPUTS, *after)}
        with triton([bundle]) as server:
            for protocol in PROTOCOLS:
                url = url_of(server, protocol)
                where = {"backend_protocol": protocol, "backend_url": url}
                requests[_forwarded(protocol)] = side("ours:handler", str(picture), **served, **where)
                asked = (protocol, url, f"{bundle.name}.detector", str(SIDE), *OUTPUTS, *after)
                calls[_plain(protocol)] = side("raw_triton:call", *asked)
            samples = measured(
                [requests, calls], [_forwarded(protocol) for protocol in PROTOCOLS], rounds * _GOES, _CALLS
            )
    return Result([found for protocol in PROTOCOLS for found in _rows(samples, protocol)])


def _forwarded(protocol: str) -> str:
    return f"forwarded request, {protocol}"


def _plain(protocol: str) -> str:
    return f"tritonclient.{protocol}"


def _rows(samples: Samples, protocol: str) -> list[Row]:
    allowed = f"embedded - {_NETWORK} + {_plain(protocol)}"
    together = [samples[name] for name in (_EMBEDDED, _NETWORK, _plain(protocol))]
    known = {**samples, allowed: [_allowed(*each) for each in zip(*together, strict=True)]}
    name, ours = f"handler, {protocol}", _forwarded(protocol)
    return [
        row(name, known, ours, allowed, "cpu_ms", at_most=_TARGET),
        row(name, known, ours, allowed, "wall_ms", at_most=_TARGET),
        row(name, known, ours, _EMBEDDED, "cpu_ms", comparison="difference"),
        row(name, known, ours, _plain(protocol), "cpu_ms", comparison="difference"),
    ]


def _allowed(embedded: Sample, network: Sample, plain: Sample) -> Sample:
    return Sample(
        embedded.wall_ms - network.wall_ms + plain.wall_ms,
        embedded.cpu_ms - network.cpu_ms + plain.cpu_ms,
    )
