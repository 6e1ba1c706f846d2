"""Steps that change an ONNX graph: raw pixels as its input, another size, fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from model_server.comparison.photos import pictures
from model_server.conversion import redeclare
from model_server.conversion.fidelity import ask
from model_server.conversion.steps import Made, Making, exporter, side
from model_server.failures import Stopped
from shared.artifacts import verified
from shared.tasks.companions import MASK, companions, told_apart
from shared.tasks.preparation import declared_hw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.geometry import HW
    from shared.tensors import Tensors

_FILE = "model.onnx"
_OTHER_BY = (64, 32)


def fold(making: Making, folder: Path) -> Made:
    picture, preprocess, wishes = making.picture, making.preprocess, making.wishes
    if picture.dtype == "uint8":
        raise Stopped(f"--fold-normalisation: input {picture.name!r} takes raw pixels already")
    layout, colour = wishes.layout or preprocess.layout, wishes.colour or preprocess.colour
    if sorted(layout) != sorted(preprocess.layout):
        raise Stopped(f"--layout: expected the axes of {preprocess.layout} in another order, found {layout}")
    graphs, model = _graph(making)
    graphs.save(graphs.fold_normalisation(model, picture.name, preprocess, layout, colour), folder / _FILE)
    declared = redeclare.folded(making.declared, making.network, picture.name, layout, colour)
    return Made(_FILE, "normalisation folded", declared)


def resize(making: Making, folder: Path) -> Made:
    """Free height and width, or others than the graph had. Found out by running it: a graph may have its size in its
    own constants. With both free, pictures still become tensors of the size that was declared."""
    graphs, model = _graph(making)
    wanted = making.wishes.size
    size = wanted or declared_hw(making.preprocess, making.picture)
    if size is None:
        raise Stopped("--free-size: the network's height and width are free already")
    changed = graphs.set_size(model, shapes(making, *(wanted or ("height", "width"))))
    outputs = graphs.output_shapes(changed, _zeros(making, size))
    if wanted is None:
        other = graphs.output_shapes(changed, _zeros(making, (size[0] + _OTHER_BY[0], size[1] + _OTHER_BY[1])))
        outputs = {name: _common(shape, other[name]) for name, shape in outputs.items()}
    graphs.save(changed, folder / _FILE)
    declared = redeclare.sized(making.declared, size)
    declared = redeclare.reshaped(declared, making.network, "inputs", shapes(making, *(wanted or (None, None))))
    declared = redeclare.reshaped(declared, making.network, "outputs", _still_free(making, outputs))
    return Made(_FILE, f"size {wanted[0]}x{wanted[1]}" if wanted else "height and width free", declared)


def shapes(making: Making, height: Any, width: Any) -> dict[str, list[Any]]:
    """The shapes of the inputs that are as large as the picture, with these sides."""
    sides = {"H": height, "W": width}
    picture, others = told_apart(making.spec.inputs, f"networks.{making.network}.inputs")
    layout = making.preprocess.layout
    found = {picture.name: [sides.get(axis, side) for axis, side in zip(layout, picture.shape, strict=True)]}
    if MASK in others:
        found[others[MASK].name] = [others[MASK].shape[0], height, width]
    return found


def half(making: Making, folder: Path) -> Made:
    graphs, model = _graph(making)
    weights = making.wishes.precision == "half-weights"
    graphs.save((graphs.half_weights if weights else graphs.half)(model), folder / _FILE)
    return Made(_FILE, "weights stored as float16" if weights else "computes in float16", making.declared)


def int8(making: Making, folder: Path) -> Made:
    assert making.wishes.calibration is not None
    calibration = pictures(making.wishes.calibration)
    quantiser = exporter("model_server.export.int8")
    _, model = _graph(making)
    floats = side(making.bundle)
    inputs = (asked.inputs for photo in calibration for asked in ask(floats, making.network, photo)[1])
    quantiser.quantised(model, inputs, folder / _FILE)
    return Made(_FILE, f"int8, calibrated on {len(calibration)} pictures", making.declared)


def _graph(making: Making) -> tuple[Any, Any]:
    """The exporter of ONNX graphs, and the network's graph."""
    graphs = exporter("model_server.export.onnx_graphs")
    path, _ = verified(making.spec, "onnx")
    return graphs, graphs.load(path)


def _zeros(making: Making, size: HW) -> Tensors:
    """Inputs for a black picture of `size`."""
    picture, others = told_apart(making.spec.inputs, f"networks.{making.network}.inputs")
    shape = [side or 1 for side in shapes(making, *size)[picture.name]]
    free = {
        role: msgspec.structs.replace(spec, shape=tuple(shapes(making, None, None).get(spec.name, spec.shape)))
        for role, spec in others.items()
    }
    return {picture.name: np.zeros(shape, picture.dtype), **companions(free, size)}


def _common(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[int | None, ...]:
    return tuple(a if a == b else None for a, b in zip(shape, other, strict=True))


def _still_free(making: Making, outputs: Mapping[str, tuple[int | None, ...]]) -> dict[str, list[int | None]]:
    """`outputs` with null wherever model.json had it before."""
    return {
        spec.name: [None if before is None else now for before, now in zip(spec.shape, outputs[spec.name], strict=True)]
        for spec in making.spec.outputs
    }
