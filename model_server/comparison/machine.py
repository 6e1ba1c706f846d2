"""What figures were measured on, and the memory of processes on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec

from shared.host import cores

_UNKNOWN = "unknown processor"


class Machine(msgspec.Struct, frozen=True):
    """A processor by its maker's name, the cores that this process may use, and all memory in GB."""

    processor: str
    cores: int
    memory_gb: float
    system: str

    def __str__(self) -> str:
        noun = "core" if self.cores == 1 else "cores"
        return f"{self.processor}, {self.cores} {noun}, {self.memory_gb:.0f} GB of memory, {self.system}"


def this_machine() -> Machine:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(_processor(), cores(), memory / 1e9, f"{platform.system()} {platform.machine()}")


def resident_mb(pid: int) -> float | None:
    """Memory that the process and those that it started hold, in MB; what they share is counted once. None where it
    cannot be read."""
    try:
        return sum(_proportional_bytes(one) for one in _family(pid)) / 1e6
    except (OSError, ValueError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or _UNKNOWN
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), _UNKNOWN)


def _family(pid: int) -> list[int]:
    """The process, its children and theirs."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found += _family(int(child))
    return found


def _proportional_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("Pss:"))
    return int(kilobytes) * 1024
