"""`python -m tests.bench [--json FILE] [--only NAME ...] [--rounds N]`"""

from __future__ import annotations

from tests.bench import (
    automatic_masks,
    cold_start,
    embedded_request,
    masks,
    preprocess,
    request_memory,
    second_click,
    stubbed_request,
    tiled_enlargement,
)
from tests.bench.command import measure

if __name__ == "__main__":
    measure(
        "python -m tests.bench",
        "Ours against the best known other ways.",
        {
            "preprocess": preprocess.run,
            "decode-memory": preprocess.run_memory,
            "masks": masks.run,
            "second-click": second_click.run,
            "automatic-masks": automatic_masks.run,
            "tiled-enlargement": tiled_enlargement.run,
            "stubbed-request": stubbed_request.run,
            "embedded-request": embedded_request.run,
            "cold-start": cold_start.run,
            "request-memory": request_memory.run,
        },
    )
