"""`python -m tests.bench.backends [--json FILE] [--only NAME ...] [--rounds N]`"""

from __future__ import annotations

from tests.bench.backends import embedded, encoded, forwarding, handler, throughput
from tests.bench.command import measure

if __name__ == "__main__":
    measure(
        "python -m tests.bench.backends",
        "Our backends against the raw calls of what they stand on.",
        {
            "forwarding": forwarding.run,
            "handler": handler.run,
            "torchscript": embedded.run_torchscript,
            "tensorflow": embedded.run_tensorflow,
            "throughput": throughput.run,
            "encoded": encoded.run,
        },
    )
