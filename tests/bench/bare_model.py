"""What the bare programs are given: the graph that our own first start has optimised, and as many threads as ours."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from shared.artifacts import CACHE
from shared.call import Call
from shared.host import cores
from shared.manifest import MANIFEST
from shared.service import Service
from shared.settings import Settings
from tests.bench.doors import bare
from tests.bench.pictures import tiny


@cache
def bare_environment() -> tuple[tuple[str, str], ...]:
    """The variables of `doors/bare.py`. The default model is opened here once, so that its optimised graph exists."""
    settings = Settings.from_environ({})
    service = Service(settings)
    served = service.find(None)
    service.predict(served, tiny(), {}, Call("bench", 60))
    folder = next(Path(settings.models).glob(f"{served.name}/{MANIFEST}")).parent
    optimised = max(folder.glob(f"{CACHE}/*.onnx"), key=lambda path: path.stat().st_mtime)
    return ((bare.MODEL, str(optimised)), (bare.THREADS, str(cores())))
