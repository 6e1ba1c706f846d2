"""The picture as it came against the prepared tensor: what is sent, what the function computes, how long it takes.

For scale: which is better depends on the network and on the picture. The default detector takes 300 x 300 x 3 bytes,
far less than a large photograph; but who sends the photograph needs no decoder, and no memory for its pixels.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from shared.settings import Settings
from tests.bench.backends.networks import write_constant
from tests.bench.backends.relay import relay
from tests.bench.backends.serving import triton
from tests.bench.backends.sides import Sides, measured, side
from tests.bench.pictures import photo
from tests.bench.processes import repeated
from tests.bench.report import Result, row
from tests.model_servers import ModelServer

_BUNDLE = "coco-ssd-mobilenet-v2"
_SIZES = {"0.9 MP": (1280, 720), "12 MP": (4000, 3000)}
_FORWARDS = ("encoded", "tensor")
_CALLS = 4
_COUNTED = 5


def run(rounds: int) -> Result:
    rows, lines = [], [("", "picture", *(f"{forward}, bytes sent" for forward in _FORWARDS))]
    with TemporaryDirectory() as scratch:
        own = write_constant(Path(scratch) / "constant")
        bundles = {"detector 300 x 300": Path(Settings.from_environ({}).models) / _BUNDLE, "nothing 640 x 640": own}
        with triton(list(bundles.values()), "encoded") as server:
            for model, bundle in bundles.items():
                for size, (width, height) in _SIZES.items():
                    picture = Path(scratch) / f"{width}.jpg"
                    picture.write_bytes(photo(width, height))
                    sides = _sides(server.http_url, bundle, picture)
                    samples = measured([sides], ["encoded"], rounds, _CALLS)
                    name = f"{model}, {size}"
                    rows += [row(name, samples, *_FORWARDS, metric) for metric in ("cpu_ms", "wall_ms")]
                    sent = [_bytes_sent(server, bundle, picture, forward) for forward in _FORWARDS]
                    lines.append((name, f"{picture.stat().st_size}", *(f"{count}" for count in sent)))
    return Result(rows, {"forwarded: the picture's bytes, and what is sent for it": lines})


def _sides(url: str, bundle: Path, picture: Path) -> Sides:
    return {
        forward: side(
            "ours:handler", str(picture), models=str(bundle), backend="triton", backend_url=url, forward=forward
        )
        for forward in _FORWARDS
    }


def _bytes_sent(server: ModelServer, bundle: Path, picture: Path, forward: str) -> int:
    """A request's, heads included, once the connection stands."""
    with relay(server.http_url) as between, _sides(between.url, bundle, picture)[forward] as process:
        repeated(process, 1)
        before = between.sent
        repeated(process, _COUNTED)
        return (between.sent - before) // _COUNTED
