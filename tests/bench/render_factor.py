"""What a render factor saves: the peak memory of a process that is asked for one large photograph, by the size that the
network is given.

    python -m tests.torch_mask_rcnn FOLDER                        makes the network, once
    python -m tests.bench.render_factor FOLDER [--plot FILE]

The network is torchvision's full-size Mask R-CNN, ResNet-50-FPN, on the processor; random weights take the memory of
trained ones. The article that DeOldify's render factor was taken to Mask R-CNN in saw 2.23 GB become 1.16 GB. It tells
neither its picture nor its factor; here they are 12 megapixels and DeOldify's default, 35. Each row is a fresh process,
which has opened the network before its memory is looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from model_server.comparison.answering import Measured, Opened, Predicted
from model_server.comparison.arms import arm
from shared.artifacts import CACHE
from shared.manifest import MANIFEST
from tests.bench.pictures import twelve_megapixels
from tests.bench.report import table

FACTORS = (128, 96, 64, 48, 35, 24, 16)
ARTICLES_FACTOR = 35
_BASE_PX = 16
_ARTICLE_MB = (2230, 1160)
_TARGET = 0.48
_RESIZING = ("resize", "side", "max_side")
_AS_IT_CAME, _USUAL = "as it came", "the model's usual"


class Point(NamedTuple):
    """One process: what it was asked, the memory in MB that it had when opened and at the highest, and the run's time;
    `factor` is None where the network took the picture by its own rules."""

    what: str
    factor: int | None
    opened_mb: float
    peak_mb: float
    infer_s: float


def measured(folder: Path, backend: str, threads: int, factors: Sequence[int] = FACTORS) -> list[Point]:
    """The picture as it came, at the size that the model is usually given, and at each factor."""
    with TemporaryDirectory() as scratch, _photo(Path(scratch)) as photo:
        whole = _unresized(folder, Path(scratch) / "whole")
        points = [
            _measured(_AS_IT_CAME, None, photo, _settings(whole, backend, threads)),
            _measured(_USUAL, None, photo, _settings(folder, backend, threads)),
        ]
        for factor in factors:
            what = f"render factor {factor}, {factor * _BASE_PX} px"
            points.append(_measured(what, factor, photo, _settings(folder, backend, threads)))
        return points


def text(points: Sequence[Point]) -> str:
    """The points as a table, each beside the picture as it came."""
    most = points[0].peak_mb
    rows = [("the network is given the picture", "opened", "peak", "of it the request's", "saved", "run")]
    rows += [
        (
            one.what,
            f"{one.opened_mb:.0f} MB",
            f"{one.peak_mb:.0f} MB",
            f"{one.peak_mb - one.opened_mb:.0f} MB",
            f"{1 - one.peak_mb / most:.0%}",
            f"{one.infer_s:.1f} s",
        )
        for one in points
    ]
    before, after = _ARTICLE_MB
    rows.append(("the article: before, after", "", f"{before} MB, {after} MB", "", f"{1 - after / before:.0%}", ""))
    return table(rows)


def saved(points: Sequence[Point]) -> float:
    """The part of the peak that the article's factor takes away from the picture as it came."""
    (at,) = (one for one in points if one.factor == ARTICLES_FACTOR)
    return 1 - at.peak_mb / points[0].peak_mb


def plot(points: Sequence[Point], path: Path) -> None:
    """Peak memory over the side of the square that the network was given."""
    import matplotlib.pyplot as plt

    by_factor = sorted((one.factor * _BASE_PX, one.peak_mb, one.opened_mb) for one in points if one.factor)
    sides, peaks, opened = zip(*by_factor, strict=True)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(sides, peaks, "o-", color="#0072B2", label="peak of the process, by render factor")
    axes.fill_between(sides, opened, color="#BFBFBF", label="of it, before the request")
    for one, colour in zip(points[:2], ("#D55E00", "#009E73"), strict=True):
        axes.axhline(one.peak_mb, color=colour, linestyle="--", label=f"{one.what}: {one.peak_mb:.0f} MB")
    axes.set(xlabel="side of the network's input in pixels", ylabel="MB", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


@contextmanager
def _photo(folder: Path) -> Iterator[Path]:
    path = folder / "photo.jpg"
    path.write_bytes(twelve_megapixels())
    yield path


def _unresized(folder: Path, place: Path) -> Path:
    """The bundle with the same network, which takes a picture at its own size."""
    place.mkdir()
    for path in folder.iterdir():
        if path.name not in (MANIFEST, CACHE):
            (place / path.name).symlink_to(path.resolve())
    declared = json.loads((folder / MANIFEST).read_bytes())
    declared["preprocess"] = {key: value for key, value in declared["preprocess"].items() if key not in _RESIZING}
    (place / MANIFEST).write_text(json.dumps(declared), encoding="utf-8")
    return place


def _settings(folder: Path, backend: str, threads: int) -> dict[str, Any]:
    return {"models": str(folder.resolve()), "backend": backend, "threads": threads, "timeout_s": 600.0}


def _measured(what: str, factor: int | None, photo: Path, settings: dict[str, Any]) -> Point:
    with arm() as process:
        opened = process.open(settings, warm_up=False)
        assert isinstance(opened, Opened), opened
        before = process.measure()
        reply = process.predict(photo, {} if factor is None else {"render_factor": factor})
        assert isinstance(reply, Predicted), reply
        after = process.measure()
    assert isinstance(before, Measured)
    assert isinstance(after, Measured)
    return Point(what, factor, before.resident_mb, after.peak_mb, reply.stages_ms["infer"] / 1e3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("folder", type=Path, metavar="BUNDLE")
    parser.add_argument("--backend", default="onnx", metavar="BACKEND")
    parser.add_argument("--threads", type=int, default=0, help="default: as many as there are cores")
    parser.add_argument("--factors", type=int, nargs="+", default=FACTORS, metavar="FACTOR")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    options = parser.parse_args()
    points = measured(options.folder, options.backend, options.threads, options.factors)
    if options.plot:
        plot(points, options.plot)
    sys.stdout.write(f"{options.backend}\n{text(points)}")
    if all(one.factor != ARTICLES_FACTOR for one in points):
        return 0
    found = saved(points)
    sys.stdout.write(f"factor {ARTICLES_FACTOR} saves {found:.0%} of the peak, target {_TARGET:.0%}\n")
    return 0 if found >= _TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
