"""Our sides: one Run, or the whole application, of the bundle and the backend that the environment names."""

from __future__ import annotations

import json
from pathlib import Path

from shared.backends import connect
from shared.call import Call
from shared.manifest import read_bundle
from shared.settings import Settings
from shared.web.application import Application
from tests.bench.backends.inputs import pixels, sums
from tests.bench.backends.loop import Way
from tests.bench.doors.called import environ

_TIMEOUT_S = 60.0


def run() -> Way:
    """The network `detector`, given the picture at the size that it takes."""
    settings = Settings.load()
    network = read_bundle(Path(settings.models)).network("detector")
    opened = connect(settings.backend, settings).open(network)
    (taken,) = network.inputs
    assert taken.shape[1] is not None
    inputs = {taken.name: pixels(taken.shape[1])}
    return Way(lambda: opened(inputs, Call("bench", _TIMEOUT_S)), sums)


def handler(picture: str) -> Way:
    """A whole request with the file `picture`, called as a WSGI server would, without a socket."""
    application, body = Application(Settings.load()), Path(picture).read_bytes()
    return Way(
        lambda: b"".join(application(environ(body), lambda status, headers, _=None: lambda _data: None)),
        lambda reply: json.loads(reply)["predictions"],
    )
