"""How much memory, how many cores and how many requests at once."""

from __future__ import annotations

import re

from model_server.failures import Stopped

PER_CORE = 4
# The function's process at its peak (README, "What each costs") and room for a few large pictures beside it.
NEEDED_MIB = {
    "onnx": 512,
    "litert": 512,
    "torchscript": 1024,
    "tensorflow": 2048,
    "triton": 256,
    "tfserving": 256,
}
_UNITS = {"Mi": 1, "Gi": 1024}


def mebibytes(text: str) -> int:
    """`512Mi`, `1.5Gi`, or a number of MiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(Mi|Gi)?", text)
    if match is None:
        raise Stopped(f"--memory: expected a size such as 512Mi or 2Gi, found {text!r}")
    return int(float(match[1]) * _UNITS[match[2] or "Mi"])


def check_memory(mib: int, backend: str | None) -> None:
    """Raises Stopped where `backend` does not fit."""
    needed = NEEDED_MIB.get(backend or "", min(NEEDED_MIB.values()))
    if mib < needed:
        raise Stopped(f"--memory: {backend or 'a function'} needs {needed} MiB, found {mib}")


def concurrency(given: int | None, cores: float) -> int:
    """Requests at once for one instance: unless given, four a core. The function works on two a core; as many wait,
    some hundredths of a second, which is less than another instance takes to start."""
    return given if given is not None else max(1, int(PER_CORE * cores))


def instances(least: int, most: int) -> None:
    """Raises Stopped where the bounds are not bounds."""
    if not 0 <= least <= most or most < 1:
        raise Stopped(f"--min-instances, --max-instances: expected 0 <= MIN <= MAX and MAX >= 1, found {least}, {most}")
