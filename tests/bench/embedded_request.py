"""A request with the default detector against the in-process loop: decode, session.run, suppress overlapping boxes.

One client, one 1280 x 720 photograph, gunicorn. The loop is `doors/bare.py`: the same decoding at reduced scale,
the same optimised graph, session options and number of threads, without a server and without any checks. What the
server may cost more is a number of milliseconds of processor time, whatever the model takes. The loop's own function
behind gunicorn shows what any server costs: a process that sleeps between requests wakes with cold caches.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.arms import CONTROL, Arm, Sample, interleaved
from tests.bench.bare_model import bare_environment
from tests.bench.pictures import photo
from tests.bench.processes import (
    Child,
    child,
    connected,
    environment,
    gunicorn,
    predicted,
    python,
    repeated,
    server,
    used,
)
from tests.bench.report import Result, row

_REQUESTS = 10
_OURS, _LOOP, _SERVED = "ours, gunicorn", "in-process loop", "the loop behind gunicorn"
_TARGET_MS = 1.3
_SIDES_PX = 2.0


def run(rounds: int) -> Result:
    picture = photo(1280, 720)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "photo.jpg"
        file.write_bytes(picture)
        bare = environment(**dict(bare_environment()), BENCH_PICTURE=str(file))
        with (
            server(gunicorn("shared.web:application"), environment()) as ours,
            child(python("-m", "tests.bench.doors.loop"), bare) as loop,
            server(gunicorn("tests.bench.doors.bare_wsgi:application"), bare) as served,
        ):
            _check_alike(ours, loop, picture)
            arms: dict[str, Arm] = {
                _OURS: partial(_asked, ours, picture),
                _OURS + CONTROL: partial(_asked, ours, picture),
                _SERVED: partial(_asked, served, picture),
                _LOOP: partial(repeated, loop, _REQUESTS),
            }
            samples = interleaved(arms, rounds)
    name = "embedded request"
    return Result(
        [
            row(name, samples, _OURS, _LOOP, "cpu_ms", at_most=_TARGET_MS, comparison="difference"),
            row(name, samples, _OURS, _LOOP, "cpu_ms"),
            row(name, samples, _OURS, _SERVED, "cpu_ms", comparison="difference"),
            row(name, samples, _OURS, _SERVED, "wall_ms", comparison="difference"),
            row(name, samples, _OURS, _LOOP, "wall_ms", comparison="difference"),
            row(name, samples, _OURS, _LOOP, "wall_ms"),
        ]
    )


def _asked(process: Child, picture: bytes) -> Sample:
    return used(process, picture, _REQUESTS)


def _check_alike(ours: Child, loop: Child, picture: bytes) -> None:
    """Raises AssertionError where the two do not find the same things."""
    with connected(ours) as connection:
        ours_found = json.loads(predicted(connection, picture))["predictions"]
    loop_found = json.loads(loop.ask("1"))["found"]["predictions"]
    assert [found["class_id"] for found in ours_found] == [found["class_id"] for found in loop_found]
    for found, other in zip(ours_found, loop_found, strict=True):
        assert all(abs(a - b) < _SIDES_PX for a, b in zip(found["box"], other["box"], strict=True)), (found, other)
