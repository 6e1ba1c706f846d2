"""Processes that are measured from outside: their processor time, their memory, their first answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from time import clock_gettime as seconds_of
from time import monotonic, sleep

from tests.bench.arms import Sample
from tests.bench.pictures import ROOT

_PROCESS_CPU_CLOCK = 2  # CPUCLOCK_SCHED: what clock_getcpuclockid(3) puts behind the process id
_RESET_PEAK = "5"  # proc_pid_clear_refs(5)
_POLL_S = 0.001
_START_S = 60.0


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def gunicorn(target: str) -> list[str]:
    return python(
        "-m", "gunicorn", target, "--workers=1", "--threads=8", "--log-level=error", "--bind=127.0.0.1:{port}"
    )


def functions_framework(source: str) -> list[str]:
    options = (f"--source={ROOT / source}", "--target=predict", "--host=127.0.0.1", "--port={port}")
    return python("-m", "functions_framework", *options)


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings of ours or of Python's (one of which keeps bytecode from being saved,
    so that every start would compile again), tuned alike for every arm."""
    own = ("THINLENS_", "AIP_", "PYTHON")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    path = os.pathsep.join((str(ROOT), str(ROOT / "function_app")))
    return inherited | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"} | extra


class Child:
    """A process that was started, with those that it starts. All of them end with the block."""

    def __init__(self, command: Sequence[str], environ: dict[str, str], port: int = 0) -> None:
        self.port = port
        self.started_s = monotonic()
        self._process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def ask(self, line: str = "") -> str:
        """The next line that it writes, after `line` where one is given."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended without an answer")
        return answer

    @property
    def cpu_s(self) -> float:
        """Processor time of the process and its children up to now."""
        return sum(seconds_of((~pid << 3) | _PROCESS_CPU_CLOCK) for pid in self._pids)

    def forget_peak(self) -> float:
        """Resident memory now, in MB, from which the next peak is counted."""
        for pid in self._pids:
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
        return sum(status_mb(pid, "VmRSS") for pid in self._pids)

    @property
    def peak_mb(self) -> float:
        return sum(status_mb(pid, "VmHWM") for pid in self._pids)

    @property
    def _pids(self) -> list[int]:
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
        return [parent, *map(int, children.split())]


def status_mb(pid: int | str, field: str) -> float:
    """A figure of /proc/PID/status. `VmHWM` is this program's own peak; ru_maxrss would start at its parent's."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{pid}/status has no {field}")


@contextmanager
def child(command: Sequence[str], environ: dict[str, str]) -> Iterator[Child]:
    process = Child(command, environ)
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def server(command: Sequence[str], environ: dict[str, str]) -> Iterator[Child]:
    """A server on a port of its own (`{port}` in the command); it may not listen yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = Child(command, environ, port)
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def connected(process: Child) -> Iterator[HTTPConnection]:
    """A connection that stays open, made as soon as the server listens."""
    connection = HTTPConnection("127.0.0.1", process.port, timeout=_START_S)
    while True:
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            if monotonic() > process.started_s + _START_S:
                raise
            sleep(_POLL_S)
    try:
        yield connection
    finally:
        connection.close()


def predicted(connection: HTTPConnection, picture: bytes) -> bytes:
    """The reply to one picture."""
    connection.request("POST", "/predict", picture, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    reply = response.read()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {reply[:500]!r}")
    return reply


def used(process: Child, picture: bytes, requests: int) -> Sample:
    """A request's elapsed time and the server's processor time, over so many on one connection that is already warm."""
    with connected(process) as connection:
        predicted(connection, picture)
        wall_s, cpu_s = monotonic(), process.cpu_s
        for _ in range(requests):
            predicted(connection, picture)
        wall_s, cpu_s = monotonic() - wall_s, process.cpu_s - cpu_s
    return Sample(wall_s * 1e3 / requests, cpu_s * 1e3 / requests)


def repeated(process: Child, times: int) -> Sample:
    """One go's elapsed and processor time, as a process that reads numbers and writes `times_ms` tells them."""
    wall_ms, cpu_ms = json.loads(process.ask(str(times)))["times_ms"]
    return Sample(wall_ms / times, cpu_ms / times)
