"""What a TensorFlow graph has under which names: its tensors, what feeds them and what nothing takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shared.backends.declared import Found

_PLACEHOLDERS = ("Placeholder", "PlaceholderV2")


def found(tensors: Mapping[str, Any]) -> list[Found]:
    """Tensors, or TensorFlow's specifications of them, by our names, dtypes and axes."""
    return [Found(name, tensor.dtype.name, _shape(tensor.shape)) for name, tensor in tensors.items()]


def named(graph: Any, names: Sequence[str]) -> dict[str, Any]:
    """Those of `names` that are in the graph, with their tensors; `image` is the same as `image:0`."""
    operations = {operation.name: operation for operation in graph.get_operations()}
    tensors = {}
    for name in names:
        operation, _, at = name.partition(":")
        outputs = operations[operation].outputs if operation in operations else []
        if (at or "0").isdigit() and int(at or "0") < len(outputs):
            tensors[name] = outputs[int(at or "0")]
    return tensors


def also_needed(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The placeholders beside `inputs` that `outputs` need, by name."""
    given = {tensor.op.name for tensor in inputs.values()}
    return _first_outputs(operation for operation in _upstream(outputs, given) if operation.type in _PLACEHOLDERS)


def placeholders(graph: Any) -> dict[str, Any]:
    """Every placeholder, needed or not, by name."""
    return _first_outputs(operation for operation in graph.get_operations() if operation.type in _PLACEHOLDERS)


def ends(graph: Any) -> dict[str, Any]:
    """The tensors that nothing in the graph takes, by name: what its outputs may be."""
    return _first_outputs(
        operation
        for operation in graph.get_operations()
        if operation.outputs and not any(tensor.consumers() for tensor in operation.outputs)
    )


def _upstream(outputs: Mapping[str, Any], given: set[str]) -> Iterator[Any]:
    """What makes `outputs`, back to the operations named in `given`, which are left out."""
    stack = [tensor.op for tensor in outputs.values()]
    seen = set(given)
    while stack:
        operation = stack.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            yield operation
            stack += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]


def _first_outputs(operations: Iterator[Any]) -> dict[str, Any]:
    return {operation.name: operation.outputs[0] for operation in operations}


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    return None if shape.rank is None else tuple(shape.as_list())
