"""`python -m tests.bench [--json FILE] [--only NAME ...] [--rounds N]`"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from tests.bench import cold_start, embedded_request, preprocess, report, request_memory, stubbed_request
from tests.bench.report import Result

BENCHMARKS: dict[str, Callable[[int], Result]] = {
    "preprocess": preprocess.run,
    "decode-memory": preprocess.run_memory,
    "stubbed-request": stubbed_request.run,
    "embedded-request": embedded_request.run,
    "cold-start": cold_start.run,
    "request-memory": request_memory.run,
}


def main() -> None:
    options = _parser().parse_args()
    results: dict[str, Result] = {}
    for name in options.only or BENCHMARKS:
        begin_s = monotonic()
        sys.stderr.write(f"{name} ... ")
        sys.stderr.flush()
        results[name] = BENCHMARKS[name](options.rounds)
        sys.stderr.write(f"{monotonic() - begin_s:.0f} s\n")
    sys.stdout.write("\n" + report.text([row for result in results.values() for row in result.rows]))
    for result in results.values():
        for title, lines in result.tables.items():
            sys.stdout.write(f"\n{title}\n{report.table(lines)}")
    if options.json:
        options.json.write_text(json.dumps(report.as_json(results, options.rounds), indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Ours against the best known other ways."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes everything there, too")
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--rounds", type=_positive, default=30, help="5 gives a quick look (default 30)")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    main()
