"""What is asked about a file, and what looking into it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, get_args

import msgspec

from model_server.failures import Stopped
from shared.backends.declared import Found
from shared.tensors import DType, TensorSpec

if TYPE_CHECKING:
    from shared.tensors import Tensors

SIGNATURE = "serving_default"
"""The signature that is called where model.json names none."""

Samples: TypeAlias = Callable[[Sequence[TensorSpec]], "Sequence[Tensors]"]
"""For a network with these inputs, what it may be given to see what it answers."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says beside the file. An input without a name is the file's own, in its order."""

    family: str | None = None
    labels: str | None = None
    name: str | None = None
    licence: str = "unknown"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[str, ...] = ()
    signature: str | None = None
    roles: Mapping[str, str] = {}


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """The network in a file: its tensors, the signature to call where that is another than usual, its own labels by
    class index, and what a person should know of all that."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    signature: str | None = None
    labels: Mapping[int, str] | None = None
    notes: Sequence[str] = ()


def spec(found: Found) -> TensorSpec:
    """A tensor as model.json has it. Raises Stopped for one that it cannot declare."""
    if found.dtype not in get_args(DType):
        raise Stopped(f"tensor {found.name!r} is {found.dtype}; expected one of {', '.join(get_args(DType))}")
    if found.shape is None:
        raise Stopped(f"the file does not say the shape of {found.name!r}: give --input '{found.name}=DTYPE[SHAPE]'")
    shape = tuple(axis if axis else None for axis in found.shape)
    return msgspec.convert({"name": found.name, "dtype": found.dtype, "shape": shape}, TensorSpec)


def chosen(outputs: Sequence[TensorSpec], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """The outputs of those names in their order; without names all of them. Raises Stopped."""
    by_name = {output.name: output for output in outputs}
    for name in names:
        if name not in by_name:
            raise Stopped(f"--output: there is no {name!r} in the file, only {', '.join(sorted(by_name))}")
    return tuple(by_name[name] for name in names) or tuple(outputs)


def chosen_signature(known: Sequence[str], wanted: str | None) -> str:
    """The signature that is wanted, else the usual one, else the only one there is. Raises Stopped."""
    if wanted is not None and wanted not in known:
        raise Stopped(f"--signature: there is no {wanted!r} in the file, only {', '.join(sorted(known)) or 'none'}")
    if wanted or SIGNATURE in known:
        return wanted or SIGNATURE
    if len(known) != 1:
        has = f"several: name one of {', '.join(sorted(known))}" if known else "none, which it needs: export it anew"
        raise Stopped(f"--signature: the file has {has}")
    return known[0]
