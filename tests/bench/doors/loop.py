"""The in-process loop: for each number read, so many pictures detected; their time, in ms, is written."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import perf_counter, process_time

from tests.bench.doors.bare import Detector

detector = Detector()
picture = Path(os.environ["BENCH_PICTURE"]).read_bytes()
for line in sys.stdin:
    wall, cpu = perf_counter(), process_time()
    for _ in range(int(line)):
        found = detector(picture)
    times_ms = [(perf_counter() - wall) * 1e3, (process_time() - cpu) * 1e3]
    sys.stdout.write(json.dumps({"times_ms": times_ms, "found": found}) + "\n")
    sys.stdout.flush()
