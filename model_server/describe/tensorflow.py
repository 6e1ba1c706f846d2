"""A SavedModel or a frozen graph, by TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import tensorflow as tf

from model_server.describe.kinds import SAVED_MODEL
from model_server.describe.looked import SIGNATURE, Asked, Looked, Samples, chosen, chosen_signature, spec
from model_server.failures import Stopped
from shared.backends import graph_tensors
from shared.backends.declared import Found
from shared.tensors import TensorSpec

_MOST_ENDS = 12
Function = Callable[[dict[str, Any]], Mapping[str, Any]]


def look(path: Path, asked: Asked, samples: Samples) -> Looked:
    """Reads the graph; runs it once where it does not say how many axes an output has. Raises Stopped."""
    tf.get_logger().setLevel("ERROR")
    try:
        return (_saved_model if path.name == SAVED_MODEL else _frozen_graph)(path, asked, samples)
    except Stopped:
        raise
    except Exception as error:  # as many ways as a file can be broken
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise Stopped(f"{path}: TensorFlow {tf.__version__} cannot open it: {line[:300]}") from error


def _saved_model(path: Path, asked: Asked, samples: Samples) -> Looked:
    loaded = tf.saved_model.load(str(path.parent))
    signature = chosen_signature(list(loaded.signatures), asked.signature)
    function = loaded.signatures[signature]
    inputs = _inputs(function.structured_input_signature[1], asked)
    outputs = graph_tensors.found(function.structured_outputs)
    return Looked(
        inputs=inputs,
        outputs=chosen(_ranked(outputs, lambda given: function(**given), inputs, samples), asked.outputs),
        signature=None if signature == SIGNATURE else signature,
        notes=[f"of several signatures, {signature!r} is the one called"] if len(loaded.signatures) > 1 else [],
    )


def _frozen_graph(path: Path, asked: Asked, samples: Samples) -> Looked:
    if asked.signature:
        raise Stopped("--signature is for a SavedModel: a frozen graph has none")
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    if not wrapped.graph.get_operations():
        raise Stopped(f"{path}: there is no graph in it")
    outputs = _outputs(wrapped.graph, asked)
    needed = graph_tensors.also_needed({}, outputs)
    inputs = _inputs(needed, asked)

    def function(given: dict[str, Any]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = wrapped.prune(list(needed.values()), outputs)(*[given[name] for name in needed])
        return answer

    notes = [] if asked.outputs else ["outputs are the tensors that nothing in the graph takes; --output names others"]
    return Looked(inputs=inputs, outputs=_ranked(graph_tensors.found(outputs), function, inputs, samples), notes=notes)


def _outputs(graph: Any, asked: Asked) -> dict[str, Any]:
    """The tensors that are asked for, else those that nothing takes. Raises Stopped."""
    ends = graph_tensors.ends(graph)
    found = graph_tensors.named(graph, asked.outputs) if asked.outputs else ends
    missing = [name for name in asked.outputs if name not in found]
    listed = f"{', '.join(list(ends)[:_MOST_ENDS])}{' …' if len(ends) > _MOST_ENDS else ''}"
    if missing:
        raise Stopped(f"--output: there is no {missing[0]!r} in the graph; nothing takes {listed}")
    if len(found) > _MOST_ENDS:
        raise Stopped(f"--output: name those of the {len(ends)} tensors that are to be outputs: {listed}")
    return found


def _inputs(tensors: Mapping[str, Any], asked: Asked) -> list[TensorSpec]:
    """The inputs; of one whose shape the graph leaves open altogether, the shape that is asked for. Raises Stopped."""
    given = {one.name: one for one in asked.inputs}
    found = {one.name: one for one in graph_tensors.found(tensors)}
    if unknown := sorted(given.keys() - {name for name, one in found.items() if one.shape is None}):
        raise Stopped(f"--input: {unknown[0]!r} is no input whose shape the file leaves open")
    return [spec(msgspec.structs.replace(one, shape=given[name].shape) if name in given else one)
            for name, one in found.items()]  # fmt: skip


def _ranked(
    outputs: Sequence[Found], function: Function, inputs: Sequence[TensorSpec], samples: Samples
) -> list[TensorSpec]:
    """The outputs, those of unknown rank with as many free axes as they have when the graph is run."""
    if all(one.shape is not None for one in outputs):
        return [spec(one) for one in outputs]
    fed = samples(inputs)[0]
    answer = function({name: tf.convert_to_tensor(array) for name, array in fed.items()})
    free = {name: (None,) * len(tensor.shape) for name, tensor in answer.items()}
    return [spec(one if one.shape is not None else msgspec.structs.replace(one, shape=free[one.name]))
            for one in outputs]  # fmt: skip
