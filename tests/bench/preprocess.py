"""A 12 megapixel JPEG to the tensor of a 640 x 640 model and of a 300 x 300 one: time, and peak memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from tests.bench import decoding
from tests.bench.arms import CONTROL, Arm, Sample, Samples, interleaved, timed
from tests.bench.decoding import OURS, Way
from tests.bench.pictures import twelve_megapixels
from tests.bench.processes import child, environment, python
from tests.bench.report import Result, Row, absolute, row

_TARGET = 1.10
_TARGET_MB = 15.0
_MEMORY_ROUNDS = 2
_ALIKE = 16  # grey levels, mean over the picture: filters differ, the picture must not
_KNOWN = {
    "640": ("naive Pillow + numpy float", "Pillow full", "Pillow draft", "cv2 full", "cv2 REDUCED_COLOR_4"),
    "300": ("Pillow draft", "cv2 full", "cv2 REDUCED_COLOR_8"),
}


def run(rounds: int) -> Result:
    data = twelve_megapixels()
    rows: list[Row] = []
    for side, ways in (("640", decoding.letterbox_ways()), ("300", decoding.stretch_ways())):
        _check_alike(ways, data)
        arms: dict[str, Arm] = {name: timed(partial(way, data)) for name, way in ways.items()}
        samples = interleaved(arms | {OURS + CONTROL: arms[OURS]}, rounds)
        rows += _against_all(f"preprocess 12 MP -> {side}", samples, _KNOWN[side])
    return Result(rows)


def run_memory(rounds: int) -> Result:
    """Each way in a process of its own. The target is absolute."""
    ways = decoding.letterbox_ways()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "photo.jpg"
        file.write_bytes(twelve_megapixels())
        arms: dict[str, Arm] = {name: partial(_decoded_apart, name, file) for name in ways}
        samples = interleaved(arms | {OURS + CONTROL: arms[OURS]}, min(rounds, _MEMORY_ROUNDS))
    name = "memory of that decode"
    rows = [absolute(name, samples, OURS, "memory_mb", _TARGET_MB)]
    return Result(rows + [row(name, samples, OURS, known, "memory_mb") for known in _KNOWN["640"]])


def _decoded_apart(way: str, file: Path) -> Sample:
    with child(python("-m", "tests.bench.decoding", way, str(file)), environment()) as process:
        return Sample(memory_mb=float(process.ask()))


def _against_all(name: str, samples: Samples, known: tuple[str, ...]) -> list[Row]:
    """A row for each known way; the target holds against the fastest, and stays open against one that is missing."""
    present = [way for way in known if way in samples]
    fastest = min(present, key=lambda way: median(sample.wall_ms for sample in samples[way]))
    others = [way for way in present if way != fastest]
    rows = [row(name, samples, OURS, way, "wall_ms", at_most=None if way in others else _TARGET) for way in known]
    return [*rows, row(name, samples, OURS, fastest, "cpu_ms", at_most=_TARGET)]


def _check_alike(ways: Mapping[str, Way], data: bytes) -> None:
    """Raises AssertionError where a way does not make the picture that ours makes."""
    ours = ways[OURS](data)
    scale = 255 if ours.dtype == np.float32 else 1
    for name, way in ways.items():
        other = way(data)
        assert (other.shape, other.dtype) == (ours.shape, ours.dtype), (name, other.shape, other.dtype)
        difference = float(np.abs(other.astype(np.float32) - ours.astype(np.float32)).mean()) * scale
        assert difference < _ALIKE, (name, difference)
