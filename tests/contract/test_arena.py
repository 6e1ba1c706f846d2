"""What ONNX Runtime has taken for a large run is given back when the network rests."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from shared.backends import connect
from shared.call import Call
from shared.host import memory
from shared.manifest import NetworkSpec
from shared.settings import Settings
from shared.tensors import Artifact, TensorSpec
from tests.servers import ROOT, environ

_MB_OF_A_RUN = 64


@pytest.fixture
def free(tmp_path: Path) -> NetworkSpec:
    """A network of free size that makes sixteen planes of a picture, and of those their mean."""
    nodes = [
        helper.make_node("Concat", ["image"] * 16, ["planes"], axis=1),
        helper.make_node("Exp", ["planes"], ["grown"]),
        helper.make_node("ReduceMean", ["grown"], ["mean"], axes=[1, 2, 3], keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, None, None])
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "planes", [image], [mean])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    onnx.checker.check_model(data)
    (tmp_path / "model.onnx").write_bytes(data)
    artifact = Artifact("model.onnx", hashlib.sha256(data).hexdigest())
    inputs = (TensorSpec("image", "float32", (1, 1, None, None)),)
    outputs = (TensorSpec("mean", "float32", (1,)),)
    return NetworkSpec("own", "1", "planes", tmp_path, inputs, outputs, {"onnx": artifact}, "own.planes")


def test_an_arena_is_given_back_when_its_network_rests(free: NetworkSpec) -> None:
    run = connect("onnx", Settings(threads=1)).open(free)
    side = int((_MB_OF_A_RUN * 1e6 / 16 / 4) ** 0.5)
    run({"image": np.zeros((1, 1, 64, 64), np.float32)}, Call("test", 60))
    before_mb = memory().now_mb
    run({"image": np.zeros((1, 1, side, side), np.float32)}, Call("test", 60))
    assert memory().now_mb > before_mb + _MB_OF_A_RUN / 2
    ends_at = monotonic() + 10
    while memory().now_mb > before_mb + _MB_OF_A_RUN / 4:
        assert monotonic() < ends_at
        sleep(0.05)
    assert run.ready()


_ENDING = """
import time
import numpy as np
from shared.backends import connect
from shared.call import Call
from shared.manifest import read_bundle
from shared.settings import Settings
from tests.servers import ROOT

network = read_bundle(ROOT / "model_server/models/mobile-sam").network("decoder")
run = connect("onnx", Settings(threads=1)).open(network)
shapes = {spec.name: [1 if axis is None else axis for axis in spec.shape] for spec in network.inputs}
run({spec.name: np.ones(shapes[spec.name], spec.dtype) for spec in network.inputs}, Call("test", 60))
time.sleep(1.005)  # into the run that gives the arena back
"""


def test_a_process_that_ends_meanwhile_ends_well() -> None:
    done = subprocess.run([sys.executable, "-c", _ENDING], cwd=ROOT, env=environ({}), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
