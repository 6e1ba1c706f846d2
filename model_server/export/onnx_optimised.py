"""A graph as ONNX Runtime optimises it for any processor: what every start would do anew is done once."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from model_server.export.exact_halves import with_exact_halves
from model_server.failures import Stopped
from shared.backends.onnx import ERRORS, sentence

BY = f"onnxruntime {ort.__version__}, extended"
"""What `optimised` says in model.json. The next level, layout, would be tied to this processor's instruction sets."""

_GPU = "CUDAExecutionProvider"
_DATA = "session.optimized_model_external_initializers_file_name"
_DATA_FROM_BYTES = "session.optimized_model_external_initializers_min_size_in_bytes"


def for_gpu() -> bool:
    """Whether this ONNX Runtime is the one for GPUs: their kernels are chosen, and fused, where one is there."""
    return _GPU in ort.get_available_providers()


def optimise(source: Path, target: Path, data: Path | None) -> None:
    """Writes the optimised graph of `source` to `target`, its weights into `data` beside it where that is named.
    Raises Stopped."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    if data is not None:
        options.add_session_config_entry(_DATA, data.name)
        options.add_session_config_entry(_DATA_FROM_BYTES, "1024")
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except ERRORS as error:
        raise Stopped(
            f"ONNX Runtime {ort.__version__} cannot open {source.name!r}: {sentence(error, source)}"
        ) from error
    if data is None:
        target.write_bytes(with_exact_halves(target.read_bytes()))
