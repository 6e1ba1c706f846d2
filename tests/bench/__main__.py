"""`python -m tests.bench [--json FILE] [--only NAME ...] [--rounds N]`"""

from __future__ import annotations

from tests.bench import cold_start, embedded_request, preprocess, request_memory, stubbed_request
from tests.bench.command import measure

if __name__ == "__main__":
    measure(
        "python -m tests.bench",
        "Ours against the best known other ways.",
        {
            "preprocess": preprocess.run,
            "decode-memory": preprocess.run_memory,
            "stubbed-request": stubbed_request.run,
            "embedded-request": embedded_request.run,
            "cold-start": cold_start.run,
            "request-memory": request_memory.run,
        },
    )
