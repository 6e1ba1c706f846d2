"""What many tests start from: photographs, and one server that runs as long as the tests do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers

_SAMPLES = servers.ROOT / "shared" / "web" / "static" / "samples"


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A JPEG of a street: people, cars, a truck."""
    return (_SAMPLES / "street.jpg").read_bytes()


@pytest.fixture(scope="session")
def photos() -> dict[str, Path]:
    """The page's sample photographs, large and small, by name."""
    return {path.stem: path for path in sorted(_SAMPLES.glob("*.jpg"))}


@pytest.fixture(scope="session")
def live_server() -> Iterator[str]:
    """The base URL of the plain container's server, with the model loaded on first use."""
    with servers.container() as server:
        yield server.url
