"""What decoding and drawing really take, each time in a process of its own that has done nothing else but warm up.

    python -m tests.peaks

takes Cases as JSON on stdin and gives the most memory of each, in bytes, on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import msgspec
from PIL import Image as Pillow

from shared import encoding, render
from shared.geometry import HW
from shared.host import forget_peak, memory, return_large_buffers
from shared.images import Picture
from shared.predictions import Detection, Prediction
from tests.servers import ROOT, environ

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_MOST_PIXELS = 1 << 30


class Case(msgspec.Struct, frozen=True):
    """A file to decode at `hw`, with its transparency or without; or to draw twenty boxes on and encode as `drawn`."""

    path: str
    hw: HW | None = None
    alpha: bool = False
    drawn: encoding.Format | None = None


def peaks(cases: Sequence[Case]) -> list[int]:
    """The most memory that each takes, in bytes."""
    command = [sys.executable, "-m", "tests.peaks"]
    asked = msgspec.json.encode(list(cases))
    done = subprocess.run(command, input=asked, cwd=ROOT, env=environ({}), stdout=subprocess.PIPE, check=True)
    found: list[int] = json.loads(done.stdout)
    return found


def _work(data: bytes, case: Case) -> None:
    if case.drawn is None:
        Picture(data, _MOST_PIXELS).decode(case.hw, alpha=case.alpha)
        return
    boxes = [(10.0 * i, 10.0, 200.0 + 9 * i, 800.0) for i in range(20)]
    found = tuple(Detection("cat", number, 0.9, box) for number, box in enumerate(boxes))
    render.drawn(data, Prediction(Picture(data, _MOST_PIXELS).header.upright_hw, found), case.drawn, _MOST_PIXELS)


def _peak_bytes(case: Case) -> int:
    """In a process that is forked off: its pages are this one's until it writes to them."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        data = Path(case.path).read_bytes()
        before = forget_peak().now_mb
        _work(data, case)
        os.write(writing, str(int((memory().peak_mb - before) * 1e6)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    os.waitpid(child, 0)
    return int(text)


def _warm_up() -> None:
    """Loads what the first picture of each format loads."""
    return_large_buffers()
    for format_ in _FORMATS:
        file = BytesIO()
        Pillow.new("RGB", (64, 64)).save(file, format_)
        Picture(file.getvalue(), _MOST_PIXELS).decode((20, 20))
    for drawn in ("jpeg", "png", "webp"):
        encoding.encoded(Pillow.new("RGB", (64, 64)), drawn)


if __name__ == "__main__":
    _warm_up()
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Case])
    sys.stdout.write(json.dumps([_peak_bytes(case) for case in asked]))
