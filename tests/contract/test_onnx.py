"""ONNX Runtime as a Backend, on small graphs: what it opens, what it keeps, and what it refuses."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from shared.artifacts import CACHE
from shared.backends import connect
from shared.call import Call
from shared.errors import ConfigurationError, DeadlineExceeded, WrongAnswer
from shared.manifest import NetworkSpec
from shared.settings import Settings
from shared.tensors import Artifact, DataFile, TensorSpec


def call() -> Call:
    """A request's time begins when it is made: not when this file is read."""
    return Call("test", 60)


INPUTS = (TensorSpec("x", "float32", (None, 3)),)
OUTPUTS = (TensorSpec("sum", "float32", (None, 3)), TensorSpec("flat", "float32", (3,)))


def graph() -> bytes:
    """x [N, 3] -> sum = x + x + 1 [N, 3], and flat = x [3], which only N = 1 can give."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Add", ["twice", "one"], ["sum"]),
        helper.make_node("Reshape", ["x", "three"], ["flat"]),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("three", TensorProto.INT64, [1], [3]),
    ]
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("flat", TensorProto.FLOAT, [3]),
        ],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def network(folder: Path, data: bytes | None = None, **changed: Any) -> NetworkSpec:
    data = graph() if data is None else data
    (folder / "model.onnx").write_bytes(data)
    artifact = Artifact("model.onnx", hashlib.sha256(data).hexdigest())
    fields = {"inputs": INPUTS, "outputs": OUTPUTS} | changed
    return NetworkSpec("own", "1", "detector", folder, artifacts={"onnx": artifact}, served_as="own.detector", **fields)


def answer(spec: NetworkSpec) -> list[float]:
    run = connect("onnx", Settings(threads=1)).open(spec)
    outputs = run({"x": np.array([[1, 2, 3]], np.float32)}, call())
    assert list(outputs) == ["sum", "flat"]
    return outputs["sum"].ravel().tolist()


def optimised(folder: Path) -> Path:
    (path,) = (folder / CACHE).glob("*.onnx")
    return path


def test_a_network_answers_by_name(tmp_path: Path) -> None:
    assert answer(network(tmp_path)) == [3, 5, 7]


def test_many_threads_may_ask_at_once(tmp_path: Path) -> None:
    run = connect("onnx", Settings(threads=1)).open(network(tmp_path))

    def ask(value: int) -> float:
        return float(run({"x": np.full((1, 3), value, np.float32)}, call())["sum"][0, 0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(100))) == [2 * value + 1 for value in range(100)]


def test_the_optimised_graph_is_kept_and_used(tmp_path: Path) -> None:
    spec = network(tmp_path)
    answer(spec)
    kept = optimised(tmp_path)
    assert len(onnx.load(kept).graph.node) <= 3
    before = kept.stat()
    assert answer(spec) == [3, 5, 7]
    assert kept.stat().st_mtime_ns == before.st_mtime_ns


def test_nothing_half_written_is_left_behind(tmp_path: Path) -> None:
    answer(network(tmp_path))
    assert not list(tmp_path.rglob("*.part"))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "garbage": lambda data: b"garbage" * 100,
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_optimised_graph_is_made_anew(damage: str, tmp_path: Path) -> None:
    spec = network(tmp_path)
    answer(spec)
    kept = optimised(tmp_path)
    kept.write_bytes(DAMAGE[damage](kept.read_bytes()))
    assert answer(spec) == [3, 5, 7]
    onnx.checker.check_model(onnx.load(optimised(tmp_path)))


def test_an_optimised_graph_of_other_weights_is_not_used(tmp_path: Path) -> None:
    answer(network(tmp_path))
    other = onnx.load_from_string(graph())
    other.graph.initializer[0].float_data[:] = [10.0]
    assert answer(network(tmp_path, other.SerializeToString())) == [12, 14, 16]


def test_a_file_of_a_start_that_was_killed_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / CACHE).mkdir()
    (tmp_path / CACHE / "0123-ort1-x86-dead.part").write_bytes(b"half")
    assert answer(network(tmp_path)) == [3, 5, 7]


def staged(spec: NetworkSpec) -> NetworkSpec:
    """The network as if it had been optimised when it was staged, by an older version."""
    artifact = msgspec.structs.replace(spec.artifacts["onnx"], optimised="onnxruntime 1.20.1, extended")
    return msgspec.structs.replace(spec, artifacts={"onnx": artifact})


def test_a_graph_that_was_optimised_when_it_was_staged_leaves_no_other(tmp_path: Path) -> None:
    assert answer(staged(network(tmp_path))) == [3, 5, 7]
    assert not list((tmp_path / CACHE).glob("*.onnx"))


def test_an_optimised_graph_that_this_version_cannot_open_is_told_with_its_own(tmp_path: Path) -> None:
    unknown = helper.make_node("Add", ["x", "x"], ["sum"], domain="com.microsoft.later")
    data = onnx.load_from_string(graph())
    data.graph.node[0].CopyFrom(unknown)
    with pytest.raises(
        ConfigurationError, match=r"cannot open .*optimised by onnxruntime 1\.20\.1, extended: have this"
    ):
        connect("onnx", Settings()).open(staged(network(tmp_path, data.SerializeToString())))


def test_what_an_optimised_graph_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no 'y' in the graph"):
        connect("onnx", Settings()).open(staged(network(tmp_path, inputs=(TensorSpec("y", "float32", (None, 3)),))))


def test_a_bundle_that_cannot_be_written_to_works_without_a_cache(tmp_path: Path) -> None:
    spec = network(tmp_path)
    (tmp_path / CACHE).write_bytes(b"a file where the folder would be")
    assert answer(spec) == [3, 5, 7]


def test_a_read_only_folder_works_without_a_cache(tmp_path: Path) -> None:
    spec = network(tmp_path)
    (tmp_path / CACHE).mkdir()
    (tmp_path / CACHE).chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert answer(spec) == [3, 5, 7]
    finally:
        (tmp_path / CACHE).chmod(stat.S_IRWXU)


def test_a_disk_that_fills_up_costs_the_cache_and_not_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert answer(network(tmp_path)) == [3, 5, 7]
    assert not list((tmp_path / CACHE).iterdir())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown input": (
        {"inputs": (TensorSpec("y", "float32", (None, 3)),)},
        "inputs: there is no 'y' in the graph, only .'x'.",
    ),
    "a missing input": ({"inputs": ()}, "inputs: also needed in the graph, .*: .'x'."),
    "an unknown output": (
        {"outputs": (TensorSpec("y", "float32", (None, 3)),)},
        "outputs: there is no 'y' in the graph",
    ),
    "a dtype": (
        {"inputs": (TensorSpec("x", "uint8", (None, 3)),)},
        "expected dtype float32 as in the graph, found uint8",
    ),
    "the number of axes": ({"inputs": (TensorSpec("x", "float32", (None, 3, 1)),)}, "expected shape"),
    "a fixed axis": (
        {"inputs": (TensorSpec("x", "float32", (None, 4)),)},
        r"expected shape \[None, 3\] as in the graph",
    ),
    "a free axis that is fixed": ({"inputs": (TensorSpec("x", "float32", (None, None)),)}, "expected shape"),
    "an output's shape": ({"outputs": (TensorSpec("flat", "float32", (4,)),)}, r"expected shape \[3\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_graph_does_not_have_is_named(case: str, tmp_path: Path) -> None:
    changed, message = WRONG[case]
    with pytest.raises(ConfigurationError, match=rf"^own: networks\.detector\..*{message}"):
        connect("onnx", Settings()).open(network(tmp_path, **changed))


def test_a_free_axis_may_be_declared_fixed(tmp_path: Path) -> None:
    assert answer(network(tmp_path, inputs=(TensorSpec("x", "float32", (1, 3)),))) == [3, 5, 7]


@pytest.mark.parametrize("data", [b"", b"garbage" * 100, graph()[:50]])
def test_a_file_that_is_no_graph_is_said_to_be_none(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"own: networks.detector: ONNX Runtime .* cannot open 'model.onnx'"
    ) as raised:
        connect("onnx", Settings()).open(network(tmp_path, data))
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("x", [np.zeros((2, 3), np.float32), np.zeros((1, 4), np.float32), np.zeros((1, 3), np.int64)])
def test_a_graph_that_fails_is_a_wrong_answer_without_its_words(x: Any, tmp_path: Path) -> None:
    run = connect("onnx", Settings()).open(network(tmp_path))
    with pytest.raises(WrongAnswer) as raised:
        run({"x": x}, call())
    assert raised.value.message == "the model failed on this picture; the log tells more under the request id"


def test_a_call_whose_time_is_over_is_not_run(tmp_path: Path) -> None:
    run = connect("onnx", Settings()).open(network(tmp_path))
    with pytest.raises(DeadlineExceeded):
        run({"x": np.zeros((1, 3), np.float32)}, Call("test", -1))


def test_a_network_is_ready_until_it_is_closed(tmp_path: Path) -> None:
    run = connect("onnx", Settings()).open(network(tmp_path))
    assert run.ready()
    run.close()
    assert not run.ready()


def test_a_framework_that_is_not_installed_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.delitem(__import__("sys").modules, "shared.backends.onnx")
    with pytest.raises(
        ConfigurationError, match=r"THINLENS_BACKEND=onnx needs onnxruntime.* pip install -r requirements.txt"
    ):
        connect("onnx", Settings())


def with_data_beside(folder: Path, scale: float, *, declared: bool = True) -> NetworkSpec:
    """A network whose weights lie in model.onnx.data, as PyTorch's exporter leaves large ones."""
    model = onnx.load_from_string(graph())
    weights = np.full((400, 3), scale, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    model.graph.node.append(helper.make_node("ReduceMax", ["weights"], ["most"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["sum", "most"], ["out"]))
    model.graph.output[0].name = "out"
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    sums = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.onnx", "model.onnx.data")]
    data = (DataFile("model.onnx.data", sums[1]),) if declared else ()
    artifact = Artifact("model.onnx", sums[0], data=data)
    outputs = (TensorSpec("out", "float32", (None, 3)), OUTPUTS[1])
    return NetworkSpec("own", "1", "detector", folder, INPUTS, outputs, {"onnx": artifact}, "own.detector")


def test_weights_beside_the_graph_are_used_as_they_are_now(tmp_path: Path) -> None:
    for scale in (10.0, 20.0):
        run = connect("onnx", Settings(threads=1)).open(with_data_beside(tmp_path, scale))
        assert run({"x": np.zeros((1, 3), np.float32)}, call())["out"].max() == 1 + scale


def test_weights_beside_the_graph_are_checked(tmp_path: Path) -> None:
    spec = with_data_beside(tmp_path, 10.0)
    data = tmp_path / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(ConfigurationError, match=r"'model.onnx.data' has"):
        connect("onnx", Settings()).open(spec)


def test_weights_beside_the_graph_have_to_be_declared(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has weights in 'model.onnx.data'; name each such file"):
        connect("onnx", Settings()).open(with_data_beside(tmp_path, 10.0, declared=False))
