"""ONNX Runtime's own call, with the optimised graph and the session options that ours has."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

from tests.bench.backends.inputs import pixels, sums
from tests.bench.backends.loop import Way


def call(graph: str, threads: str, side: str, *outputs: str) -> Way:
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session, picture = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"]), pixels(int(side))

    def work() -> dict[str, Any]:
        return dict(zip(outputs, session.run(list(outputs), {"image": picture}), strict=True))

    return Way(work, sums)
