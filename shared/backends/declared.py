"""Whether a network is what model.json declares: the same rules for every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from shared.errors import ConfigurationError, ModelOutputMismatch

if TYPE_CHECKING:
    from shared.manifest import NetworkSpec
    from shared.tensors import Tensors, TensorSpec


class Found(msgspec.Struct, frozen=True):
    """A tensor as a graph or a model server describes it: its dtype by our names, None for a free axis. A `shape` of
    None says that nothing is known of it, as TorchScript's."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


def check_declared(network: NetworkSpec, inputs: Sequence[Found], outputs: Sequence[Found], place: str) -> None:
    """Whether the tensors found `place` ("in the graph", "on the model server") are those that model.json declares.

    Outputs that nobody declared are left alone. Raises ConfigurationError that names the first that differs.
    """
    for kind, declared, found in (("inputs", network.inputs, inputs), ("outputs", network.outputs, outputs)):
        field = f"{network.field}.{kind}"
        by_name: Mapping[str, Found] = {tensor.name: tensor for tensor in found}
        for spec in declared:
            if spec.name not in by_name:
                raise ConfigurationError(f"{field}: there is no {spec.name!r} {place}, only {sorted(by_name)}")
            _check(f"{field}: {spec.name!r}", spec, by_name[spec.name], place, is_input=kind == "inputs")
        undeclared = sorted(by_name.keys() - {spec.name for spec in declared})
        if kind == "inputs" and undeclared:
            raise ConfigurationError(f"{field}: also needed {place}, but not declared in model.json: {undeclared}")


def check_outputs(network: NetworkSpec, outputs: Tensors) -> Tensors:
    """The declared outputs of one run, in the order of model.json, once each has been found to be what is declared: for
    backends that learn dtypes and shapes only by running. Raises ModelOutputMismatch."""
    checked = {}
    for spec in network.outputs:
        if spec.name not in outputs:
            raise ModelOutputMismatch(
                f"output {spec.name!r} is missing; found {sorted(outputs)}", output=spec.name, found=sorted(outputs)
            )
        array = outputs[spec.name]
        if array.dtype.name != spec.dtype or not spec.fits(array.shape):
            raise ModelOutputMismatch(
                f"output {spec.name!r}: model.json declares {spec.dtype} {list(spec.shape)}, "
                f"found {array.dtype.name} {list(array.shape)}",
                output=spec.name,
                expected=[spec.dtype, list(spec.shape)],
                found=[array.dtype.name, list(array.shape)],
            )
        checked[spec.name] = array
    return checked


def _check(field: str, spec: TensorSpec, found: Found, place: str, *, is_input: bool) -> None:
    if found.dtype != spec.dtype:
        raise ConfigurationError(f"{field}: expected dtype {found.dtype} as {place}, found {spec.dtype} in model.json")
    shape = found.shape
    agrees = shape is None or (
        len(shape) == len(spec.shape)
        and all(
            want == got or got is None or (want is None and not is_input)
            for want, got in zip(spec.shape, shape, strict=True)
        )
    )
    if shape is not None and not agrees:
        raise ConfigurationError(
            f"{field}: expected shape {list(shape)} as {place}, found {list(spec.shape)} in model.json"
        )
