"""Weights as float16, only where that loses nothing."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_server.export.exact_halves import with_exact_halves

Weights: TypeAlias = "npt.NDArray[Any]"

EXACT: Weights = (np.arange(1024, dtype=np.float32) - 512) / np.float32(8)
INEXACT: Weights = EXACT + np.float32(1e-4)


def model(weights: Weights, *, default: bool = False) -> bytes:
    """x [n] -> y = x + w, where w may be a default that a caller can replace."""
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(weights)])]
    if default:
        values.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [len(weights)]))
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(weights)])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values, [out], [numpy_helper.from_array(weights, "w")])
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return data


def test_weights_that_float16_holds_take_half() -> None:
    halved = with_exact_halves(model(EXACT))
    onnx.checker.check_model(onnx.load_from_string(halved), full_check=True)
    assert len(halved) < len(model(EXACT)) - 2 * len(EXACT) + 100


def test_what_is_computed_stays_the_same() -> None:
    session = ort.InferenceSession(with_exact_halves(model(EXACT)), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.zeros(1024, np.float32)})
    assert np.array_equal(y, EXACT)


@pytest.mark.parametrize(
    "kept",
    [
        model(INEXACT),
        model(EXACT * np.float32(1e6)),
        model(EXACT * np.float32(np.nan)),
        model(EXACT[:255]),
        model(EXACT, default=True),
    ],
    ids=["inexact", "too large", "no numbers", "few", "a default"],
)
def test_everything_else_stays_as_it_was(kept: bytes) -> None:
    assert with_exact_halves(kept) == kept


def test_weights_of_no_number_are_left_alone() -> None:
    assert with_exact_halves(b"") == b""
