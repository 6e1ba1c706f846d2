"""How far a 12 megapixel request lifts the server's resident memory above what it holds, idle, with the model loaded.

The bare script behind the same gunicorn, once decoding at reduced scale as we do and once the whole picture. Each
measurement has a server of its own, which has answered a small photograph before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tests.bench.arms import CONTROL, Arm, Sample, interleaved
from tests.bench.bare_model import bare_environment
from tests.bench.doors import bare
from tests.bench.pictures import photo, twelve_megapixels
from tests.bench.processes import connected, environment, gunicorn, predicted, server
from tests.bench.report import Result, row

_ROUNDS = 3
_OURS, _DRAFT, _FULL = "ours, gunicorn", "bare gunicorn, Pillow draft", "bare gunicorn, Pillow full"
_TARGET_MB = 15.0


def run(rounds: int) -> Result:
    draft = environment(**dict(bare_environment()))
    application = gunicorn("tests.bench.doors.bare_wsgi:application")
    ours: Arm = partial(_peak, gunicorn("shared.web:application"), environment())
    arms: dict[str, Arm] = {
        _OURS: ours,
        _OURS + CONTROL: ours,
        _DRAFT: partial(_peak, application, draft),
        _FULL: partial(_peak, application, draft | {bare.WHOLE: "1"}),
    }
    samples = dict(interleaved(arms, min(rounds, _ROUNDS)))
    upload_mb = len(twelve_megapixels()) / 1e6
    upload = f"(the upload, {upload_mb:.1f} MB)"
    samples[upload] = [Sample(memory_mb=upload_mb)] * len(samples[_OURS])
    name = "memory of a 12 MP request"
    return Result(
        [
            row(name, samples, _OURS, upload, "memory_mb", at_most=_TARGET_MB, comparison="difference"),
            row(name, samples, _OURS, _DRAFT, "memory_mb"),
            row(name, samples, _OURS, _FULL, "memory_mb"),
        ]
    )


def _peak(command: Sequence[str], environ: dict[str, str]) -> Sample:
    with server(command, environ) as process, connected(process) as connection:
        for _ in range(3):
            predicted(connection, photo(1280, 720))
        idle_mb = process.forget_peak()
        predicted(connection, twelve_megapixels())
        return Sample(memory_mb=process.peak_mb - idle_mb)
