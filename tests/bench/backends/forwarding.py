"""A tensor of 640 x 640 x 3 bytes to a real Triton and a small answer back, by our Run and by Triton's own client.

The plain call makes a request of the picture that it is given, as ours does; the prepared one has it made already, and
sends the same bytes again and again: no program that is given pictures can do that, so it is for scale.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.backends.networks import SIDE, write_constant
from tests.bench.backends.serving import triton
from tests.bench.backends.sides import Sides, measured, side
from tests.bench.report import Result, Row, row
from tests.model_servers import ModelServer

PROTOCOLS = ("http", "grpc")
OUTPUTS = ("boxes", "scores")
_CALLS, _GOES = 20, 3
_TARGET = 1.05


def run(rounds: int) -> Result:
    with TemporaryDirectory() as scratch:
        bundle = write_constant(Path(scratch) / "constant")
        with triton([bundle]) as server:
            return Result([found for protocol in PROTOCOLS for found in _compared(server, bundle, protocol, rounds)])


def _compared(server: ModelServer, bundle: Path, protocol: str, rounds: int) -> list[Row]:
    url = url_of(server, protocol)
    ours, plain, prepared = f"our Run, {protocol}", f"tritonclient.{protocol}", f"tritonclient.{protocol}, prepared"
    asked = (protocol, url, f"{bundle.name}.detector", str(SIDE), *OUTPUTS)
    sides: Sides = {
        ours: side("ours:run", models=str(bundle), backend="triton", backend_protocol=protocol, backend_url=url),
        plain: side("raw_triton:call", *asked),
        prepared: side("raw_triton:prepared", *asked),
    }
    samples = measured([sides], [ours], rounds * _GOES, _CALLS)
    name = f"forward 640 x 640, {protocol}"
    return [
        row(name, samples, ours, plain, "wall_ms", at_most=_TARGET),
        row(name, samples, ours, plain, "cpu_ms", at_most=_TARGET),
        row(name, samples, ours, prepared, "wall_ms"),
        row(name, samples, ours, prepared, "cpu_ms"),
    ]


def url_of(server: ModelServer, protocol: str) -> str:
    return server.http_url if protocol == "http" else server.grpc_url
