"""The outputs of a script, as it has given them: its own names or made ones, and the axes that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from model_server.describe.looked import spec
from model_server.failures import Stopped
from shared.backends.declared import Found
from shared.tensors import TensorSpec

_FROM_RUNS = (
    "outputs are as a grey picture and a photograph gave them: make an axis null that may change with the picture"
)
_NAMELESS = "the script's outputs have no names: --output gives them, in their order"


def outputs_of(answers: Sequence[Any], names: Sequence[str]) -> tuple[list[TensorSpec], list[str]]:
    """The outputs that all `answers` have, and what a person should know. Those without names of their own get `names`,
    or numbers. Raises Stopped."""
    named = [_own(answer) for answer in answers]
    if None in named:
        tensors = [_numbered(answer, names) for answer in answers]
        notes = [_FROM_RUNS] if names else [_FROM_RUNS, _NAMELESS]
    else:
        tensors, notes = [one for one in named if one is not None], [_FROM_RUNS]
    common = [name for name in tensors[0] if all(name in one for one in tensors)]
    return [_merged(name, [one[name] for one in tensors]) for name in common], notes


def _own(answer: Any) -> dict[str, torch.Tensor] | None:
    """The tensors of an answer that has names (as the TorchScript backend finds them), or None."""
    found: dict[str, Any] | None = None
    match answer:
        case [dict(), [dict(found)]] | [dict(found)] | dict(found):
            pass
        case tuple() if fields := getattr(answer, "_fields", ()):
            found = dict(zip(fields, answer, strict=True))
    return None if found is None else {name: one for name, one in found.items() if isinstance(one, torch.Tensor)}


def _numbered(answer: Any, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The tensors that an answer begins with."""
    several = list(answer) if isinstance(answer, list | tuple) else [answer]
    others = (at for at, one in enumerate(several) if not isinstance(one, torch.Tensor))
    tensors = several[: next(others, None)]
    if not tensors or len(names) > len(tensors):
        begins = f"begins with {len(tensors)} tensors" if tensors else f"is a {type(answer).__name__}"
        raise Stopped(f"--output: the script's answer {begins}, expected {len(names) or 'at least one'}")
    return dict(zip(names or [f"output{at}" for at in range(len(tensors))], tensors, strict=False))


def _merged(name: str, tensors: Sequence[torch.Tensor]) -> TensorSpec:
    """One output over several runs: axes that differ, or are empty, are free."""
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len({(len(tensor.shape), tensor.dtype) for tensor in tensors}) > 1:
        raise Stopped(f"output {name!r} has another dtype or number of axes from picture to picture, found {shapes}")
    shape = tuple(sides[0] if len({*sides}) == 1 else None for sides in zip(*shapes, strict=True))
    return spec(Found(name, str(tensors[0].dtype).removeprefix("torch."), shape))
