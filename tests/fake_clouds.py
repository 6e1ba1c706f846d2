"""`az` and `gcloud` as executables that keep a small state, write down how they were called and fail where they are
told to; and the service that they say they have deployed."""

from __future__ import annotations

import json
import os
import re
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.hostile_server import self_signed

State = dict[str, Any]
_TOOL = Path(__file__).with_name("fake_clouds_tool.py")


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its words, and what lay in the files that it named."""

    words: list[str]
    files: dict[str, str]

    @property
    def line(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True, slots=True)
class FakeCloud:
    """One of the two tools, in a folder that PATH has to begin with."""

    program: str
    folder: Path

    @classmethod
    def install(cls, program: str, folder: Path, address: str) -> FakeCloud:
        """The tool; what it deploys answers at `address`, under a path that is the name of the place."""
        folder.mkdir(parents=True)
        script = folder / program
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {_TOOL} {program} {folder} "$@"\n')
        script.chmod(0o755)
        made = cls(program, folder)
        made.write({"address": address})
        return made

    def write(self, state: State) -> None:
        (self.folder / "state.json").write_text(json.dumps(state))

    @property
    def state(self) -> State:
        loaded: State = json.loads((self.folder / "state.json").read_text())
        return loaded

    def fail(self, pattern: str, stderr: str) -> None:
        """Lets every call fail whose words fit `pattern`."""
        self.write(self.state | {"failing": [pattern, stderr]})

    def heal(self) -> None:
        """Lets no call fail."""
        self.write({name: value for name, value in self.state.items() if name != "failing"})

    @property
    def calls(self) -> list[Call]:
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return [Call(**json.loads(line)) for line in lines]

    def forget(self) -> None:
        (self.folder / "calls").unlink()

    def called(self, pattern: str) -> list[Call]:
        return [call for call in self.calls if re.search(pattern, call.line)]


@dataclass(slots=True)
class Deployed:
    """The service behind every address, told apart by the first part of the path; those in `broken` do not answer,
    and where there is a `key` it has to be shown."""

    address: str
    broken: set[str] = field(default_factory=set)
    unready: set[str] = field(default_factory=set)
    key: str | None = None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def reply(self, path: str, headers: dict[str, str]) -> tuple[int, object]:
        self.asked.append((path, headers))
        place, _, route = path.strip("/").partition("/")
        if route == "ready":
            return (503, {"state": "warming"}) if place in self.unready else (200, {"state": "ready"})
        if self.key and headers.get("x-api-key") != self.key:
            return 401, {"error": {"code": "unauthorized"}}
        return (500, {"error": {"code": "internal_error"}}) if place in self.broken else (200, {"predictions": [{}]})


@contextmanager
def trusted_service(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """The service, its certificate among those that this process trusts."""
    certificate, context = self_signed(folder, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with deployed(context) as found:
        yield found


def on_path(program: str, folder: Path, service: Deployed, monkeypatch: pytest.MonkeyPatch) -> FakeCloud:
    """The tool, as the first of its name."""
    made = FakeCloud.install(program, folder / "bin", service.address)
    monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}{os.environ['PATH']}")
    return made


@contextmanager
def deployed(tls: ssl.SSLContext) -> Iterator[Deployed]:
    """The service, by TLS on a free port of localhost."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, content = service.reply(self.path, {name.lower(): value for name, value in self.headers.items()})
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: the test has `asked`."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        service = Deployed(f"localhost:{server.server_port}")
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()
