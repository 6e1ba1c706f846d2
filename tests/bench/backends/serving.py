"""The real Triton of a benchmark, and what it says of the batches that it has formed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple, Self
from urllib.request import urlopen

from model_server.triton.config import Serving
from model_server.triton.repository import write_repository
from tests import model_servers
from tests.model_servers import ModelServer


@contextmanager
def triton(bundles: Sequence[Path], forward: Literal["tensor", "encoded"] = "tensor") -> Iterator[ModelServer]:
    """NVIDIA's server with `bundles`, which its Python backend runs."""
    with TemporaryDirectory(prefix="thinlens-bench-") as scratch:
        repository = Path(scratch) / "models"
        write_repository(bundles, repository, Serving(platform="python", forward=forward))
        with model_servers.triton(repository) as server:
            yield server


class Batches(NamedTuple):
    """How many pictures a model has answered, and in how many runs."""

    pictures: int
    runs: int

    @classmethod
    def of(cls, server: ModelServer, model: str) -> Self:
        with urlopen(f"{server.http_url}/v2/models/{model}/stats") as reply:
            (told,) = json.load(reply)["model_stats"]
        return cls(told["inference_count"], told["execution_count"])

    def since(self, before: Self) -> Self:
        return type(self)(self.pictures - before.pictures, self.runs - before.runs)
