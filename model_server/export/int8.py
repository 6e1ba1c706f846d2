"""Static INT8: activations as uint8, weights as int8 with a scale a channel, ranges from calibration pictures."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from model_server.export.onnx_graphs import body, plain_weights, save
from model_server.failures import Stopped

if TYPE_CHECKING:
    from shared.tensors import Tensors

_PER_CHANNEL_OPSET = 13
_OPSET = 17


class _Pictures(CalibrationDataReader):
    def __init__(self, inputs: Iterable[Tensors]) -> None:
        self._inputs: Iterator[Tensors] = iter(inputs)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        one = next(self._inputs, None)
        return None if one is None else dict(one)


def quantised(model: onnx.ModelProto, inputs: Iterable[Tensors], path: Path) -> None:
    """Writes `model` in INT8 to `path`, its ranges those met on `inputs`, which are what the service feeds it.

    QDQ is as quick on a processor as fused operators (0.43 and 0.44 of the float time, measured on the default
    detector) and other runtimes read it too. Every operator between the first and the last layer is quantised, for what
    is left out between two costs a way to floats and back: with convolutions alone the time is 0.63. What comes before
    and after stays in floats: eight bits are no coordinate. Raises Stopped.
    """
    with TemporaryDirectory() as scratch, _quiet():
        plain, prepared = Path(scratch) / "plain.onnx", Path(scratch) / "prepared.onnx"
        save(_modern(plain_weights(model)), plain)
        try:
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            named = plain_weights(onnx.load(str(prepared)))
            onnx.save(named, str(prepared))
            inside = body(named)
            if not inside:
                raise Stopped("--int8: the graph has no convolution or matrix product with weights of its own")
            quantize_static(
                str(prepared),
                str(path),
                _Pictures(inputs),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=sorted({node.name for node in named.graph.node} - inside),
            )
        except (ValueError, RuntimeError, NotImplementedError, KeyError) as error:
            raise Stopped(f"--int8: ONNX Runtime cannot quantise this graph: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's quantiser advises on the root logger, about steps that have been taken."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` at an opset that knows a scale for each channel."""
    opset = max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    return model if opset >= _PER_CHANNEL_OPSET else version_converter.convert_version(model, _OPSET)
