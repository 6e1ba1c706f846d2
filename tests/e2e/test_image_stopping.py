"""SIGTERM, which every cloud sends before it takes a container away."""

from __future__ import annotations

from time import monotonic, sleep

import pytest
import requests

from docker.matrix.variants import Variant
from tests.container_images import Functions
from tests.containers import Container
from tests.uploads import Upload

pytestmark = pytest.mark.images

_TIMEOUT_S = 60.0
_STOP_S = 8.0


def test_a_request_under_way_is_answered_and_the_container_ends(
    functions: Functions, variant: Variant, photo: bytes
) -> None:
    with functions.running(variant) as function, Upload(function.port, photo, "image/jpeg") as upload:
        _warm(function, photo)
        function.terminate()
        begin = monotonic()
        sleep(0.5)  # the signal is there before the rest of the body
        status, reply = upload.finish()
        assert (status, len(reply["predictions"]) > 0) == (200, True), reply
        assert function.wait(_STOP_S - (monotonic() - begin)) == 0, function.log[-4000:]


def _warm(function: Container, photo: bytes) -> None:
    requests.post(f"{function.url}/predict", data=photo, timeout=_TIMEOUT_S).raise_for_status()
