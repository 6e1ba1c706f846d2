"""One file for one network: the same graph becomes the same bytes, whatever names and order a converter chose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter

import onnx
from onnx import helper, numpy_helper


def canonical(model: onnx.ModelProto, *, producer: str) -> onnx.ModelProto:
    """`model` with its nodes in one order, its names counted afresh, equal constants merged and unused ones gone.

    Nodes are listed depth first from the outputs, so what no output needs falls away. Inputs and outputs keep their
    names, less TensorFlow's `:0`. Subgraphs (If, Loop, Scan) are refused with a ValueError: names inside them may
    point outside.
    """
    names = _Names(model.graph)
    nodes = [names.rewritten(node) for node in _depth_first(model.graph)]
    domains = {node.domain for node in nodes}
    graph = helper.make_graph(
        nodes, "network", _renamed(model.graph.input), _renamed(model.graph.output), names.constants
    )
    return helper.make_model(
        graph,
        opset_imports=[opset for opset in model.opset_import if opset.domain in domains],
        ir_version=model.ir_version,
        producer_name=producer,
    )


def _depth_first(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node that an output needs, each after the nodes that it needs."""
    maker = {output: node for node in graph.node for output in node.output}
    done: set[str] = set()
    stack = [(output.name, False) for output in reversed(graph.output)]
    while stack:
        name, inputs_done = stack.pop()
        node = maker.get(name)
        if node is None or node.output[0] in done:
            continue
        if inputs_done:
            done.add(node.output[0])
            yield node
        else:
            stack.append((name, True))
            stack.extend((source, False) for source in reversed(node.input))


def _outer(name: str) -> str:
    return name.removesuffix(":0")


def _renamed(values: Iterable[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    return [onnx.ValueInfoProto(name=_outer(value.name), type=value.type) for value in values]


class _Names:
    """Gives every tensor a name that depends on the graph alone: its node's kind, count and place."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants: list[onnx.TensorProto] = []
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._by_content: dict[bytes, str] = {}
        self._new = {value.name: _outer(value.name) for value in (*graph.input, *graph.output)} | {"": ""}
        self._count: Counter[str] = Counter()

    def rewritten(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy of `node` under its new names; the nodes that it needs must have been rewritten before."""
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ValueError(f"node {node.name!r} ({node.op_type}) holds a subgraph, expected a flat graph")
        attributes: list[onnx.AttributeProto] = sorted(node.attribute, key=attrgetter("name"))
        name = f"{node.op_type}_{self._count[node.op_type]}"
        self._count[node.op_type] += 1
        for at, output in enumerate(node.output):
            self._new.setdefault(output, f"{name}:{at}" if at else name)
        return onnx.NodeProto(
            op_type=node.op_type,
            domain=node.domain,
            name=name,
            input=[self._source(source, f"{name}.{at}") for at, source in enumerate(node.input)],
            output=[self._new[output] for output in node.output],
            attribute=attributes,
        )

    def _source(self, old: str, proposed: str) -> str:
        if old not in self._stored:
            return self._new[old]
        tensor = numpy_helper.from_array(numpy_helper.to_array(self._stored[old]))
        content = tensor.SerializeToString(deterministic=True)
        if content not in self._by_content:
            self._by_content[content] = tensor.name = proposed
            self.constants.append(tensor)
        return self._by_content[content]
