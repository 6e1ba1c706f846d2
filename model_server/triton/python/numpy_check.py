"""Whether this interpreter's numpy is one that Triton's Python backend was built for."""

from __future__ import annotations

import sys

import numpy as np
import triton_python_backend_utils as pb_utils


def check_numpy() -> None:
    """Refuses the pair that would answer with empty tensors: numpy 2, and a Python backend built for numpy 1, which
    looks for numpy where that one had its insides."""
    pb_utils.Tensor("probe", np.zeros(1, np.float32))
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0" and "numpy.core.multiarray" in sys.modules:
        raise pb_utils.TritonModelException(f"this Triton's Python backend needs numpy<2, found {np.__version__}")
