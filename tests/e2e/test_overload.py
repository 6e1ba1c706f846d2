"""More requests at once than a door can take: some are refused and told so, none is lost, health still answers."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from time import monotonic

import numpy as np
import pytest
import requests
from PIL import Image

from tests import servers

_CLIENTS = 40
_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def heavy() -> bytes:
    """A PNG whose decoding takes a while."""
    noise = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@pytest.mark.parametrize("door", ["container", "google"])
def test_those_past_the_queue_are_told_to_come_back_and_health_answers(door: str, heavy: bytes) -> None:
    with servers.DOORS[door]({"THINLENS_MAX_CONCURRENCY": "1"}) as server:
        requests.post(f"{server.url}/predict", heavy, timeout=_TIMEOUT_S).raise_for_status()

        def ask(_: int) -> requests.Response:
            return requests.post(f"{server.url}/predict?format=png", heavy, timeout=_TIMEOUT_S)

        with ThreadPoolExecutor(_CLIENTS) as clients:
            asked = [clients.submit(ask, number) for number in range(_CLIENTS)]
            begin = monotonic()
            assert requests.get(f"{server.url}/health", timeout=_TIMEOUT_S).ok
            health_s = monotonic() - begin
            replies = [one.result() for one in asked]
    statuses = Counter(reply.status_code for reply in replies)
    assert statuses[200] >= 5
    assert statuses[429] > 0
    assert statuses[200] + statuses[429] == _CLIENTS
    assert all(reply.headers["Retry-After"] for reply in replies if reply.status_code == 429)
    assert health_s < 10
