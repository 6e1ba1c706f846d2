"""From the start of a process to its first answer, at each door, against the bare script behind the same door.

gunicorn and functions-framework: the clock runs from the start of the server process until a client, which tries to
connect every millisecond, has read the whole reply to one POST of a 1280 x 720 JPEG. On the other side the same
server, with the same options, serves `doors/bare.py`: it imports onnxruntime, numpy and Pillow, opens the optimised
graph, decodes that JPEG at reduced scale, runs once, suppresses overlapping boxes and answers in JSON.
Azure: until the reply's body has been read from the process's output; ours imports function_app, has its app indexed
and calls its function with an HttpRequest, the other imports azure.functions and calls a plain function with one.
Both clouds' own libraries import Werkzeug; gunicorn does not, so that door is also shown with Werkzeug on both sides.

Both sides: the optimised graph that an earlier start has saved, no spinning threads, OPENBLAS_NUM_THREADS=1, bytecode
compiled, files in the page cache. Processor time is that of the process and its children up to the answer.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic

from tests.bench.arms import CONTROL, Arm, Sample, interleaved
from tests.bench.bare_model import bare_environment
from tests.bench.pictures import ROOT, photo
from tests.bench.processes import (
    child,
    connected,
    environment,
    functions_framework,
    gunicorn,
    predicted,
    python,
    server,
)
from tests.bench.report import Result, row

_TARGET = 1.15
_STAGE_ROUNDS = 10
_MOST_IMPORTS = 15


@dataclass(frozen=True, slots=True)
class Door:
    """The commands of the two sides. A door that listens is asked over HTTP; the other one writes its answer."""

    name: str
    ours: Sequence[str]
    bare: Sequence[str]
    listens: bool = True
    sdk: Sequence[str] = ()
    """The bare side with the library that our application brings to a door which has none of its own."""


_DOORS = (
    Door(
        "gunicorn",
        gunicorn("shared.web:application"),
        gunicorn("tests.bench.doors.bare_wsgi:application"),
        sdk=gunicorn("tests.bench.doors.bare_werkzeug:application"),
    ),
    Door(
        "functions-framework",
        functions_framework("function_app/main.py"),
        functions_framework("tests/bench/doors/bare_google.py"),
    ),
    Door(
        "azure",
        python("-m", "tests.bench.doors.our_azure"),
        python("-m", "tests.bench.doors.bare_azure"),
        listens=False,
    ),
)


def run(rounds: int) -> Result:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "photo.jpg"
        file.write_bytes(photo(1280, 720))
        ours = environment(BENCH_PICTURE=str(file))
        bare = environment(**dict(bare_environment()), BENCH_PICTURE=str(file))
        arms: dict[str, Arm] = {}
        for door in _DOORS:
            arms[f"ours, {door.name}"] = partial(_first_answer, door.ours, ours, door.listens)
            arms[f"ours, {door.name}{CONTROL}"] = arms[f"ours, {door.name}"]
            arms[f"bare, {door.name}"] = partial(_first_answer, door.bare, bare, door.listens)
            if door.sdk:
                arms[f"bare and Werkzeug, {door.name}"] = partial(_first_answer, door.sdk, bare, door.listens)
        samples = interleaved(arms, rounds)
        tables = {
            "cold start by stage, ms (without a server)": _stages(ours, min(rounds, _STAGE_ROUNDS)),
            "imports until our first answer by package, own ms (-X importtime, which slows them)": _imports(ours),
        }
    rows = []
    for door in _DOORS:
        ours_name, bare_name = f"ours, {door.name}", f"bare, {door.name}"
        rows.append(row("cold start", samples, ours_name, bare_name, "wall_ms", at_most=_TARGET))
        rows.append(row("cold start", samples, ours_name, bare_name, "cpu_ms"))
        if door.sdk:
            rows.append(row("cold start", samples, ours_name, f"bare and Werkzeug, {door.name}", "wall_ms"))
    return Result(rows, tables)


def _first_answer(command: Sequence[str], environ: dict[str, str], listens: bool) -> Sample:
    if not listens:
        with child(command, environ) as process:
            process.ask()
            return Sample((monotonic() - process.started_s) * 1e3, process.cpu_s * 1e3)
    with server(command, environ) as process, connected(process) as connection:
        predicted(connection, photo(1280, 720))
        return Sample((monotonic() - process.started_s) * 1e3, process.cpu_s * 1e3)


def _stages(environ: dict[str, str], rounds: int) -> list[tuple[str, str]]:
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        with child(python("-m", "tests.bench.doors.stages", str(monotonic())), environ) as process:
            found.append(json.loads(process.ask()))
    medians = {stage: median(times[stage] for times in found) for stage in found[0]}
    return [*((stage, f"{ms:.1f}") for stage, ms in medians.items()), ("together", f"{sum(medians.values()):.1f}")]


def _imports(environ: dict[str, str]) -> list[tuple[str, str]]:
    done = subprocess.run(
        python("-X", "importtime", "-m", "tests.bench.doors.stages", "0"),
        cwd=ROOT,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    own_us: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        own, _, module = line.removeprefix("import time:").split("|") if line.count("|") == 2 else ("", "", "")
        if own.strip().isdigit():
            own_us[module.strip().partition(".")[0]] += int(own)
    return [(package, f"{us / 1e3:.1f}") for package, us in own_us.most_common(_MOST_IMPORTS)]
