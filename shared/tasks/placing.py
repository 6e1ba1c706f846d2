"""One network on a whole picture: how large its input is, within the memory there is, and its run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from shared import needs
from shared.errors import OutOfMemory
from shared.parameters import RenderFactor
from shared.tasks import Plan, preparation
from shared.tasks.companions import companions, told_apart

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.call import Call
    from shared.geometry import HW, Resize
    from shared.images import Header, Image
    from shared.manifest import Bundle, Network
    from shared.tensors import Tensors

FIXED_SIZE = "render_factor has no effect: the network's input has a fixed size"
_LEAST_FACTOR = 4  # below 64 pixels nothing is found
_FLOAT_BYTES = 4


class Placed(Plan, frozen=True, kw_only=True):
    """A Plan for one network: where the picture goes in its input, by which render factor, and what to say of it."""

    resize: Resize
    render_factor: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ran:
    """What a network gave, the way back from its pixels, and how that came to be."""

    outputs: Tensors
    resize: Resize
    render_factor: int | None
    notes: tuple[str, ...]


class Placing:
    """A network that takes whole pictures, and the bundle's `preprocess`. Raises ConfigurationError where the two do
    not fit together."""

    def __init__(self, bundle: Bundle, name: str, network: Network) -> None:
        self._bundle = bundle
        self._name = name
        self._preprocess = bundle.model.preprocess
        self._input, self._others = told_apart(network.inputs, f"networks.{name}.inputs")
        preparation.check(self._preprocess, self._input)
        self._is_free = preparation.declared_hw(self._preprocess, self._input) is None

    def plan(self, header: Header, render_factor: RenderFactor, budget_bytes: int) -> Placed:
        """The placement of a picture: by the factor that was asked for; by `auto` as the model would have it, or, where
        that needs more than the budget, by the largest factor that does not."""
        asked = None if render_factor == "auto" else render_factor
        if asked is not None and not self._is_free:
            return self._placed(header, None, (FIXED_SIZE,))
        plan = self._placed(header, asked)
        if asked is not None or plan.bytes_needed <= budget_bytes or not self._is_free:
            return plan
        for factor in _smaller(plan.resize.model_hw):
            lower = self._placed(header, factor, (_foreseen(factor),))
            if lower.bytes_needed <= budget_bytes:
                return lower
        return plan

    def run(self, image: Image, plan: Placed, run: Run, call: Call) -> Ran:
        """What the network gives for `image`; where memory runs out all the same, for a smaller input, by half its
        factor, once more by half. Raises OutOfMemory and what the backend raises."""
        resize, factor, notes = plan.resize, plan.render_factor, plan.notes
        lower = _halves(resize.model_hw) if self._is_free else iter(())
        while True:
            try:
                return Ran(self._outputs(image, resize, run, call), resize, factor, notes)
            except OutOfMemory:
                factor = next(lower, None)
                if factor is None:
                    raise
            resize = preparation.place(image.source_hw, self._preprocess, self._input, factor)
            notes = (*plan.notes, f"memory was short: the model was run with render factor {factor}")

    def _outputs(self, image: Image, resize: Resize, run: Run, call: Call) -> Tensors:
        with call.stage("preprocess"):
            tensor = preparation.to_tensor(image, resize, self._preprocess, self._input)
        with call.stage("infer"):
            return run({self._input.name: tensor, **companions(self._others, resize.model_hw)}, call)

    def _placed(self, header: Header, factor: int | None, notes: tuple[str, ...] = ()) -> Placed:
        resize = preparation.place(header.upright_hw, self._preprocess, self._input, factor)
        elements = 3 * prod(resize.model_hw)
        decoding = needs.decode_bytes(header, resize.content_hw)
        # The pixels stay beside the tensor, for a second, smaller try.
        running = (3 + _FLOAT_BYTES) * elements + needs.run_bytes(self._bundle, self._name, elements)
        return Placed(
            decode_hw=resize.content_hw,
            bytes_needed=max(decoding, running),
            resize=resize,
            render_factor=factor,
            notes=notes,
        )


def _factor_of(model_hw: HW) -> int:
    """The render factor of a square with as many pixels."""
    return int((prod(model_hw) ** 0.5) // preparation.RENDER_BASE_PX)


def _smaller(model_hw: HW) -> Iterator[int]:
    """Every factor whose square has fewer pixels, the largest first."""
    yield from range(_factor_of(model_hw), _LEAST_FACTOR - 1, -1)


def _halves(model_hw: HW) -> Iterator[int]:
    for divisor in (2, 4):
        yield max(1, _factor_of(model_hw) // divisor)


def _foreseen(factor: int) -> str:
    return f"memory is short: the model was run with render factor {factor}"
