"""What requests were foreseen to take, beside what they took: `python -m tests.bench.foreseen_memory [--plot FILE]`.

Each request is the first large one of a process of its own, which has its models open and has answered a small picture.
What it took is the most that was resident over what was before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from shared import backends
from shared.call import Call
from shared.embeddings import Memo
from shared.errors import Failure
from shared.host import forget_peak, memory
from shared.local import LocalPredictor
from shared.manifest import read_bundle
from shared.memory import Memory, Reservation
from shared.predictor import PictureFormat
from shared.settings import Settings
from tests.bench.pictures import ROOT, encoded
from tests.bench.processes import environment

_MODELS = ROOT / "model_server" / "models"
_DETECTOR, _SAM, _BOTH, _ENLARGER = "coco-ssd-mobilenet-v2", "mobile-sam", "coco-ssd-mobile-sam", "esrgan-slim"
_SMALL, _TWELVE, _FIFTY = (640, 480), (4000, 3000), (8000, 6200)
_PROGRESSIVE = {"progressive": True}
_FAST_PNG, _FAST_WEBP = {"compress_level": 1}, {"method": 0}
_BOXES = [[90 * i, 80 * i, 90 * i + 900, 80 * i + 900] for i in range(16)]
_LIMIT_S = 600.0
_MOST_PIXELS = 100_000_000


class Work(msgspec.Struct, frozen=True):
    """A picture for a bundle, with parameters; drawn on where `picture` says how."""

    name: str
    bundle: str
    format: str = "JPEG"
    size: tuple[int, int] = _TWELVE
    options: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    picture: PictureFormat | None = None


class Took(msgspec.Struct, frozen=True):
    foreseen_mb: float
    taken_mb: float
    s: float
    failure: str = ""


WORKS = [
    Work("detector, 12 MP", _DETECTOR),
    Work("detector, 12 MP progressive", _DETECTOR, options=_PROGRESSIVE),
    Work("detector, 12 MP PNG", _DETECTOR, "PNG", options=_FAST_PNG),
    Work("detector, 12 MP WebP", _DETECTOR, "WEBP", options=_FAST_WEBP),
    Work("detector, 12 MP, drawn as JPEG", _DETECTOR, picture="jpeg"),
    Work("detector, 50 MP", _DETECTOR, size=_FIFTY),
    Work("detector, 50 MP progressive", _DETECTOR, size=_FIFTY, options=_PROGRESSIVE),
    Work("detector, 50 MP, drawn as PNG", _DETECTOR, size=_FIFTY, picture="png"),
    Work("a click, 12 MP", _SAM, parameters={"points": [[1500, 1200]]}),
    Work("16 boxes, 12 MP", _SAM, parameters={"boxes": _BOXES}),
    Work("instances, 12 MP", _BOTH),
    Work("instances, 12 MP, drawn as JPEG", _BOTH, picture="jpeg"),
    Work("x4 of 640x480", _ENLARGER, size=_SMALL, parameters={"scale": 4}),
    Work("x2 of 1600x1200 as PNG", _ENLARGER, size=(1600, 1200), parameters={"scale": 2}, picture="png"),
]  # fmt: skip


class _Noting(Memory):
    """Unlimited, and knows what was asked of it."""

    most_bytes = 0

    @contextmanager
    def reserved(self, needed_bytes: int, call: Call) -> Iterator[Reservation]:
        self.most_bytes = max(self.most_bytes, needed_bytes)
        yield Reservation()


def took(work: Work) -> Took:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.bench.foreseen_memory", "--one"]
    environ = environment(THINLENS_THREADS=os.environ.get("THINLENS_THREADS", "2"))
    done = subprocess.run(
        command, input=msgspec.json.encode(work), cwd=ROOT, env=environ, capture_output=True, check=True
    )
    return msgspec.json.decode(done.stdout, type=Took)


def _measured(work: Work) -> Took:
    noting = _Noting()
    backend = partial(backends.connect, "onnx", Settings.load())
    bundle = read_bundle(_MODELS / work.bundle)
    memo = Memo(64_000_000)
    predictor = LocalPredictor(bundle, backend, max_pixels=_MOST_PIXELS, memory=noting, memo=memo)
    predictor.open(warm_up=False)
    given = {"points": [[5, 5]]} if work.bundle == _SAM else {"scale": 2} if work.bundle == _ENLARGER else {}
    ask = partial(_ask, predictor)
    ask(encoded("JPEG", (64, 48)), given, work.picture)
    source = encoded(work.format, work.size, **work.options)
    noting.most_bytes = 0
    before, begin = forget_peak().now_mb, perf_counter()
    try:
        ask(source, work.parameters, work.picture)
    except Failure as failure:
        return Took(noting.most_bytes / 1e6, 0, 0, f"{failure.code}: {failure}")
    return Took(noting.most_bytes / 1e6, memory().peak_mb - before, perf_counter() - begin)


def _ask(predictor: LocalPredictor, source: bytes, given: dict[str, Any], picture: PictureFormat | None) -> None:
    predictor.predict(source, predictor.parse(given), Call("bench", _LIMIT_S), picture, lambda _: None)


def _row(name: str, found: Took) -> str:
    if found.failure:
        return f"{name:34s} {found.foreseen_mb:9.0f} {found.failure}"
    share = found.foreseen_mb / found.taken_mb
    return f"{name:34s} {found.foreseen_mb:9.0f} {found.taken_mb:9.0f} {share:6.2f} {found.s:7.1f}"


def _plot(path: Path, found: dict[str, Took]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, places = list(found), range(len(found))
    figure, axes = pyplot.subplots(figsize=(9, 0.4 * len(names) + 1.5), layout="constrained")
    axes.barh([place - 0.2 for place in places], [found[name].taken_mb for name in names], 0.4, label="taken")
    axes.barh([place + 0.2 for place in places], [found[name].foreseen_mb for name in names], 0.4, label="foreseen")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel("MB beside what the process holds")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.foreseen_memory")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(
            msgspec.json.encode(_measured(msgspec.json.decode(sys.stdin.buffer.read(), type=Work))).decode()
        )
        return
    sys.stdout.write(f"{'request':34s} {'foreseen':>9s} {'taken MB':>9s} {'share':>6s} {'s':>7s}\n")
    found: dict[str, Took] = {}
    for work in WORKS:
        if (_MODELS / work.bundle).is_dir():
            found[work.name] = took(work)
            sys.stdout.write(_row(work.name, found[work.name]) + "\n")
            sys.stdout.flush()
    if options.plot:
        _plot(options.plot, found)


if __name__ == "__main__":
    main()
