"""The command of a set of benchmarks: which to run, how many rounds, the table and the file of what they found."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

from tests.bench import report
from tests.bench.report import Result


def measure(program: str, description: str, benchmarks: Mapping[str, Callable[[int], Result]]) -> None:
    options = _parser(program, description, benchmarks).parse_args()
    results: dict[str, Result] = {}
    for name in options.only or benchmarks:
        begin_s = monotonic()
        sys.stderr.write(f"{name} ... ")
        sys.stderr.flush()
        results[name] = benchmarks[name](options.rounds)
        sys.stderr.write(f"{monotonic() - begin_s:.0f} s\n")
    sys.stdout.write("\n" + report.text([row for result in results.values() for row in result.rows]))
    for result in results.values():
        for title, lines in result.tables.items():
            sys.stdout.write(f"\n{title}\n{report.table(lines)}")
    if options.json:
        options.json.write_text(json.dumps(report.as_json(results, options.rounds), indent=1) + "\n", encoding="utf-8")


def _parser(program: str, description: str, benchmarks: Mapping[str, object]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes everything there, too")
    parser.add_argument(
        "--only", nargs="+", choices=benchmarks, metavar="NAME", help=f"some of {', '.join(benchmarks)}"
    )
    parser.add_argument("--rounds", type=_positive, default=30, help="5 gives a quick look (default 30)")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value
