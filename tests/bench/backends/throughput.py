"""Eight clients of one Triton that batches: eight threads of one process of ours, all with the same Run, against eight
threads that each have a client of Triton's own, as its documentation asks for.

What is compared is the time for so many pictures, a picture. The server tells how many it has run together meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.bench.arms import CONTROL, Arm, Sample, interleaved
from tests.bench.backends.forwarding import PROTOCOLS, url_of
from tests.bench.backends.networks import SIDE, write_batched
from tests.bench.backends.serving import Batches, triton
from tests.bench.backends.sides import Side, check_alike, side
from tests.bench.processes import Child, repeated
from tests.bench.report import Result, row
from tests.model_servers import ModelServer

_CLIENTS = 8
_CALLS, _GOES = 80, 2
_TARGET = 1 / 0.95  # of the time: 0.95 of the throughput


class _Driven:
    """An arm: one process that asks the server, and the batches that the server has formed of what it asked."""

    def __init__(self, server: ModelServer, model: str, process: Child) -> None:
        self._server, self._model, self._process = server, model, process
        self.batches: list[Batches] = []

    def __call__(self) -> Sample:
        before = Batches.of(self._server, self._model)
        sample = repeated(self._process, _CALLS)
        self.batches.append(Batches.of(self._server, self._model).since(before))
        return sample


def run(rounds: int) -> Result:
    with TemporaryDirectory() as scratch:
        bundle = write_batched(Path(scratch) / "batched")
        model = f"{bundle.name}.detector"
        with triton([bundle]) as server, ExitStack() as stack:
            children = {name: stack.enter_context(one) for name, one in _sides(server, bundle, model).items()}
            check_alike(children, _CALLS)
            arms = {name: _Driven(server, model, process) for name, process in children.items()}
            again: dict[str, Arm] = {_ours(each) + CONTROL: arms[_ours(each)] for each in PROTOCOLS}
            samples = interleaved({**arms, **again}, rounds * _GOES)
    name = f"{_CLIENTS} clients, one Triton"
    rows = [
        row(name, samples, _ours(each), _plain(each), metric, at_most=_TARGET if metric == "wall_ms" else None)
        for each in PROTOCOLS
        for metric in ("wall_ms", "cpu_ms")
    ]
    return Result(rows, {f"{_CLIENTS} clients: throughput, and what Triton has run together": _table(arms, samples)})


def _ours(protocol: str) -> str:
    return f"our Run, {protocol}"


def _plain(protocol: str) -> str:
    return f"tritonclient.{protocol}"


def _sides(server: ModelServer, bundle: Path, model: str) -> dict[str, Side]:
    sides: dict[str, Side] = {}
    clients = ("--clients", str(_CLIENTS))
    for protocol in PROTOCOLS:
        url = url_of(server, protocol)
        served = {"models": str(bundle), "backend": "triton", "backend_protocol": protocol, "backend_url": url}
        sides[_ours(protocol)] = side("ours:run", *clients, **served)
        asked = (protocol, url, model, str(SIDE), "features")
        sides[_plain(protocol)] = side("raw_triton:call", *asked, *clients, "--own")
    return sides


def _table(arms: Mapping[str, _Driven], samples: Mapping[str, list[Sample]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [("", "pictures a second", "pictures", "runs", "pictures a run")]
    for name, driven in arms.items():
        per_s = 1e3 / median(sample.wall_ms for sample in samples[name])
        pictures, runs = (sum(counts) for counts in zip(*driven.batches, strict=True))
        lines.append((name, f"{per_s:.0f}", str(pictures), str(runs), f"{pictures / runs:.2f}"))
    return lines
