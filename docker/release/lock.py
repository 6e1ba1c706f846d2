"""What a hashed lock file installs on one Python."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from model_server.failures import Stopped

_SYSTEM = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}


def requirements_for(lock: Path, python: str) -> str:
    """The lines of `lock` that hold on Linux on x86-64 and `python` (3.11, …), without their markers: pip would judge
    those by the Python that it runs on. Raises Stopped for a line that is not a pinned package with its hashes."""
    if not lock.is_file():
        raise Stopped(f"{lock}: there is no such lock file; `make locks` writes it")
    environment = {**_SYSTEM, "python_version": python, "python_full_version": f"{python}.0"}
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return "".join(found for line in lines if (found := _line(line, environment, lock)))


def _line(line: str, environment: dict[str, str], lock: Path) -> str:
    head, *hashes = line.split("--hash=")
    try:
        wanted = Requirement(head.strip())
    except InvalidRequirement as error:
        raise Stopped(f"{lock}: {head.strip()!r} is no package") from error
    pins = list(wanted.specifier)
    if not hashes or len(pins) != 1 or pins[0].operator != "==":
        raise Stopped(f"{lock}: {head.strip()!r}: expected NAME==VERSION and its hashes")
    if wanted.marker is not None and not wanted.marker.evaluate(environment):
        return ""
    return " ".join([f"{wanted.name}=={pins[0].version}", *(f"--hash={each.strip()}" for each in hashes)]) + "\n"
