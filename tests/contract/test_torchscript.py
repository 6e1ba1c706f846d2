"""TorchScript as a Backend: scripts and traces, what it refuses, and the default detector's answer."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from shared.artifacts import sha256_of
from shared.backends import Run, connect
from shared.call import Call
from shared.errors import ConfigurationError, DeadlineExceeded, ModelOutputMismatch, OutOfMemory, WrongAnswer
from shared.manifest import NetworkSpec
from shared.service import Service
from shared.settings import Settings
from shared.tensors import Artifact, TensorSpec
from tests.graphs import Input, write_bundle
from tests.servers import ROOT

torch: Any = pytest.importorskip("torch")
Tensor: Any = torch.Tensor

pytestmark = pytest.mark.torch

INPUTS = (TensorSpec("x", "float32", (None, 3)), TensorSpec("times", "float32", (1,)))
OUTPUTS = (TensorSpec("sum", "float32", (None, 3)), TensorSpec("first", "float32", (3,)))
ARGUMENTS = {"times": np.array([2], np.float32), "x": np.array([[1, 2, 3]], np.float32)}


class Named(NamedTuple):
    first: torch.Tensor
    sum: torch.Tensor


def call() -> Call:
    """A request's time begins when it is made: not when this file is read."""
    return Call("test", 60)


@contextmanager
def deprecated() -> Iterator[None]:
    """PyTorch deprecates every way to make a TorchScript file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
        yield


def script(source: str) -> bytes:
    """A TorchScript file whose forward is `source`, the code of a method."""
    with deprecated():
        module = type("Own", (torch.jit.ScriptModule,), {})()  # what is defined is its class's, too
        module.define(source)
        file = BytesIO()
        torch.jit.save(module, file)
    return file.getvalue()


def forward(answer: str, arguments: str = "x, times") -> bytes:
    return script(f"def forward(self, {arguments}):\n    total = x * times + 1.0\n    return {answer}\n")


def traced(module: Any, *examples: Any) -> bytes:
    with deprecated():
        file = BytesIO()
        torch.jit.save(torch.jit.trace(module.eval(), examples), file)
    return file.getvalue()


def network(folder: Path, data: bytes, **changed: Any) -> NetworkSpec:
    (folder / "model.ts").write_bytes(data)
    artifact = Artifact("model.ts", sha256_of(folder / "model.ts"))
    fields = {"inputs": INPUTS, "outputs": OUTPUTS} | changed
    artifacts = {"torchscript": artifact}
    return NetworkSpec("own", "1", "detector", folder, artifacts=artifacts, served_as="own.detector", **fields)


def opened(folder: Path, data: bytes, **changed: Any) -> Run:
    return connect("torchscript", Settings(threads=1)).open(network(folder, data, **changed))


def named_tuple() -> bytes:
    class Model(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Tensor, times: Tensor) -> Named:
            return Named(x[0], x * times + 1.0)

    with deprecated():
        file = BytesIO()
        torch.jit.save(torch.jit.script(Model()), file)
    return file.getvalue()


FORMS: dict[str, Callable[[], bytes]] = {
    "a tuple in the declared order": lambda: forward("total, x[0]"),
    "a list": lambda: forward("[total, x[0]]"),
    "a tuple with more than is declared": lambda: forward("total, x[0], [x, x]"),
    "a dict": lambda: forward('{"first": x[0], "other": x, "sum": total}'),
    "a list of one dict": lambda: forward('[{"first": x[0], "sum": total}]'),
    "losses beside a list of one dict": lambda: forward('{"loss": x}, [{"first": x[0], "sum": total}]'),
    "a named tuple": named_tuple,
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_have_the_declared_names_and_order(form: str, tmp_path: Path) -> None:
    outputs = opened(tmp_path, FORMS[form]())(ARGUMENTS, call())
    assert [(name, array.ravel().tolist()) for name, array in outputs.items()] == [
        ("sum", [3, 5, 7]),
        ("first", [1, 2, 3]),
    ]


def test_one_output_may_be_a_tensor_alone(tmp_path: Path) -> None:
    outputs = opened(tmp_path, forward("total"), outputs=OUTPUTS[:1])(ARGUMENTS, call())
    assert {name: array.tolist() for name, array in outputs.items()} == {"sum": [[3, 5, 7]]}


def test_arguments_go_in_the_order_of_model_json(tmp_path: Path) -> None:
    run = opened(tmp_path, forward("total, x[0]", "times, x"), inputs=INPUTS[::-1])
    assert run(ARGUMENTS, call())["sum"].tolist() == [[3, 5, 7]]


def test_an_argument_with_a_default_may_stay_undeclared(tmp_path: Path) -> None:
    run = opened(tmp_path, forward("total, x[0]", "x, times, more: Optional[Tensor] = None"))
    assert run(ARGUMENTS, call())["sum"].tolist() == [[3, 5, 7]]


def test_a_script_of_a_list_of_pictures_gets_a_list_of_one(tmp_path: Path) -> None:
    data = script("def forward(self, images: List[Tensor]):\n    return images[0].sum(1), torch.tensor(len(images))\n")
    specs = {"inputs": INPUTS[:1], "outputs": (TensorSpec("a", "float32", (None,)), TensorSpec("b", "int64", ()))}
    outputs = opened(tmp_path, data, **specs)(ARGUMENTS, call())
    assert (outputs["a"].tolist(), int(outputs["b"])) == ([6], 1)


@pytest.mark.parametrize("layout", ["read-only", "turned round", "every second"])
def test_an_array_of_any_layout_is_taken_and_left_as_it_is(layout: str, tmp_path: Path) -> None:
    wide = np.repeat(ARGUMENTS["x"], 2, axis=1)
    x = {"read-only": ARGUMENTS["x"].copy(), "turned round": ARGUMENTS["x"][:, ::-1], "every second": wide[:, ::2]}
    given = x[layout]
    given.flags.writeable = False
    run = opened(tmp_path, forward("x.view(-1, 3) * times + 1.0, x[0]"))
    assert run({**ARGUMENTS, "x": given}, call())["first"].tolist() == given[0].tolist()


def test_a_trace_with_weights_stored_as_float16_answers(tmp_path: Path) -> None:
    class Scaled(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("one", torch.ones(3, dtype=torch.float16))

        def forward(self, x: Any, times: Any) -> Any:
            return x * times + self.one.float(), x[0]

    data = traced(Scaled(), torch.zeros(1, 3), torch.zeros(1))
    assert opened(tmp_path, data)(ARGUMENTS, call())["sum"].tolist() == [[3, 5, 7]]


def test_a_script_that_is_frozen_already_is_opened(tmp_path: Path) -> None:
    with deprecated():
        module = torch.jit.freeze(torch.jit.load(BytesIO(forward("total, x[0]"))).eval())
        file = BytesIO()
        torch.jit.save(module, file)
    assert opened(tmp_path, file.getvalue())(ARGUMENTS, call())["sum"].tolist() == [[3, 5, 7]]


def test_many_threads_may_ask_at_once(tmp_path: Path) -> None:
    run = opened(tmp_path, forward("total, x[0]"))

    def ask(value: int) -> float:
        return float(run({**ARGUMENTS, "x": np.full((1, 3), value, np.float32)}, call())["sum"][0, 0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(200))) == [2 * value + 1 for value in range(200)]


WRONG_INPUTS: dict[str, tuple[bytes, Any, str]] = {
    "too few": (forward("total, x[0]"), INPUTS[:1], r"takes \['x: Tensor', 'times: Tensor'\], found \['x'\]"),
    "too many": (
        forward("total, x[0]"),
        (*INPUTS, TensorSpec("mask", "float32", (1,))),
        r"found \['x', 'times', 'mask'\] in model.json",
    ),
    "another order of the script's own names": (
        forward("total, x[0]"),
        INPUTS[::-1],
        r"takes \['x', 'times'\], in this order, found \['times', 'x'\]",
    ),
    "one left out between the script's own names": (
        script(
            "def forward(self, x, mask: Optional[Tensor] = None, times: Optional[Tensor] = None):\n    return x, x[0]\n"
        ),
        INPUTS,
        r"takes \['x', 'mask', 'times'\], in this order, found \['x', 'times'\]",
    ),
    "no tensor": (
        script("def forward(self, x, times: int):\n    return x, x[0]\n"),
        INPUTS,
        r"expected a script that takes tensors, found \['x: Tensor', 'times: int'\]",
    ),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_arguments_that_the_script_does_not_take_are_named_at_opening(case: str, tmp_path: Path) -> None:
    data, inputs, message = WRONG_INPUTS[case]
    with pytest.raises(ConfigurationError, match=rf"^own: networks\.detector\.inputs: .*{message}"):
        opened(tmp_path, data, inputs=inputs)


WRONG_OUTPUTS: dict[str, tuple[str, str]] = {
    "a name": ('{"first": x[0], "total": total}', r"output 'sum' is missing; found \['first'\]"),
    "the number": ("total", r"output 'first' is missing; found \['sum'\]"),
    "a dtype": ("total.double(), x[0]", r"'sum': model.json declares float32 \[None, 3\], found float64 \[1, 3\]"),
    "a dtype that numpy has not": ("total.to(torch.bfloat16), x[0]", r"'sum': found bfloat16"),
    "a shape": ("total, x", r"'first': model.json declares float32 \[3\], found float32 \[1, 3\]"),
    "no tensor": ("total, [x]", r"'first': expected a tensor, found list"),
}


@pytest.mark.parametrize("case", WRONG_OUTPUTS)
def test_an_output_that_is_not_as_declared_is_named(case: str, tmp_path: Path) -> None:
    answer, message = WRONG_OUTPUTS[case]
    with pytest.raises(ModelOutputMismatch, match=message):
        opened(tmp_path, forward(answer))(ARGUMENTS, call())


@pytest.fixture(scope="module")
def whole() -> bytes:
    return forward("total, x[0]")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "garbage": lambda data: b"garbage" * 100,
    "zeros inside": lambda data: data[:80] + bytes(200) + data[280:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_no_script_is_said_to_be_none(damage: str, whole: bytes, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"own: networks.detector: PyTorch .* cannot open 'model.ts'"
    ) as raised:
        opened(tmp_path, DAMAGE[damage](whole))
    assert str(tmp_path) not in str(raised.value)


def test_what_torch_export_writes_is_told_apart(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "own.pt2")
    with pytest.raises(ConfigurationError, match=r"it is of torch.export; expected TorchScript"):
        opened(tmp_path, (tmp_path / "own.pt2").read_bytes())


def test_what_torch_save_writes_is_told_apart(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "own.pth")
    with pytest.raises(ConfigurationError, match=r"it holds a pickled module or weights"):
        opened(tmp_path, (tmp_path / "own.pth").read_bytes())


_OTHER_OPERATORS = """
import torch, warnings
warnings.simplefilter("ignore")
torch.library.define("torchvision::nms", "(Tensor a, Tensor b, float c) -> Tensor")
module = torch.jit.ScriptModule()
module.define("def forward(self, x, times):\\n    return x, torch.ops.torchvision.nms(x, times, 0.5)\\n")
torch.jit.save(module, {path!r})
"""


def test_an_operator_that_is_not_here_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.ts"
    subprocess.run([sys.executable, "-c", _OTHER_OPERATORS.format(path=str(path))], check=True, timeout=120)
    with pytest.raises(ConfigurationError, match=r"cannot open 'model.ts': .*torchvision::nms"):
        opened(tmp_path, path.read_bytes())


@pytest.mark.parametrize("x", [np.zeros((2, 4), np.float32), np.zeros((1, 3), np.int8)])
def test_a_script_that_fails_is_a_wrong_answer_without_its_words(
    x: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(tmp_path, script("def forward(self, x, times):\n    return x @ x.new_ones(3, 3).float(), x[0]\n"))
    run(ARGUMENTS, call())
    with caplog.at_level(logging.WARNING, "thinlens"), pytest.raises(WrongAnswer) as raised:
        run({**ARGUMENTS, "x": x}, call())
    assert raised.value.message == "the model failed on this picture; the log tells more under the request id"
    assert caplog.records[0].__dict__["fields"] == {"request_id": "test"}


_OWN_METHODS = """
from pathlib import Path
import numpy as np, torch, warnings
from shared.backends.torchscript import TorchScriptBackend
from shared.call import Call
from shared.errors import WrongAnswer
from shared.settings import Settings
from tests.contract.test_torchscript import ARGUMENTS, network

spec = network(Path({folder!r}), Path({file!r}).read_bytes())
try:
    TorchScriptBackend(Settings(threads=1)).open(spec)(ARGUMENTS, Call("test", 60))
except WrongAnswer as error:
    print(error.message)
"""


def test_a_script_that_fails_in_a_method_of_its_own_does_not_take_the_process_with_it(tmp_path: Path) -> None:
    with deprecated():
        module = type("Own", (torch.jit.ScriptModule,), {})()
        module.define("def helper(self, x):\n    return x.reshape(7)\n")
        module.define("def forward(self, x, times):\n    return self.helper(x), x[0]\n")
        torch.jit.save(module, tmp_path / "own.ts")
    code = _OWN_METHODS.format(folder=str(tmp_path), file=str(tmp_path / "own.ts"))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split(":")[0]) == (
        0,
        "the model has not yet answered to what model.json declares",
    )


def test_a_script_that_never_answers_says_why(tmp_path: Path) -> None:
    run = opened(tmp_path, script("def forward(self, x, times):\n    return x.reshape(7), x[0]\n"))
    with pytest.raises(WrongAnswer, match=r"^the model has not yet answered .*: shape '\[7\]' is invalid"):
        run(ARGUMENTS, call())


def test_what_a_script_raises_itself_is_a_wrong_answer(tmp_path: Path) -> None:
    source = "def forward(self, x, times):\n    if x.sum() > 1:\n        raise ValueError('bad')\n    return x, x[0]\n"
    with pytest.raises(WrongAnswer):
        opened(tmp_path, script(source))(ARGUMENTS, call())


def test_a_tensor_too_large_for_the_memory_is_out_of_memory(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory):
        opened(tmp_path, forward("total.repeat(1000000000000, 1), x[0]"))(ARGUMENTS, call())


def test_a_call_whose_time_is_over_is_not_run(whole: bytes, tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded):
        opened(tmp_path, whole)(ARGUMENTS, Call("test", -1))


def test_a_network_is_ready_until_it_is_closed(whole: bytes, tmp_path: Path) -> None:
    run = opened(tmp_path, whole)
    assert run.ready()
    run.close()
    assert not run.ready()


def test_every_dtype_goes_in_and_comes_out(tmp_path: Path) -> None:
    kinds: tuple[Any, ...] = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")
    for kind in kinds:
        specs = {"inputs": (TensorSpec("x", kind, (2,)),), "outputs": (TensorSpec("y", kind, (2,)),)}
        run = opened(tmp_path, script("def forward(self, x):\n    return torch.flip(x, [0])\n"), **specs)
        assert run({"x": np.array([1, 0], kind)}, call())["y"].tolist() == [0, 1]


def test_the_threads_are_those_of_the_settings(whole: bytes, tmp_path: Path) -> None:
    for threads in (2, 1):
        connect("torchscript", Settings(threads=threads))
        assert torch.get_num_threads() == threads


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_said(device: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^THINLENS_DEVICE: there is no '{device}' for PyTorch"):
        connect("torchscript", Settings(device=device))


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    return {name: Service(Settings(backend=name, threads=1)) for name in ("onnx", "torchscript")}


@pytest.mark.parametrize("name", ["street", "astronaut", "chelsea", "coffee"])
def test_the_default_detector_answers_as_under_onnx_runtime(
    name: str, photos: dict[str, Path], services: dict[str, Service]
) -> None:
    source = photos[name].read_bytes()
    expected, found = (
        service.predict(service.find(None), source, {}, call()).prediction.predictions for service in services.values()
    )
    assert expected
    assert [one.label for one in found] == [one.label for one in expected]
    assert np.abs(np.subtract([one.score for one in found], [one.score for one in expected])).max() < 1e-3
    assert np.abs(np.subtract([one.box for one in found], [one.box for one in expected])).max() < 0.5


def test_eight_callers_at_once_get_the_answers_of_one(photos: dict[str, Path], services: dict[str, Service]) -> None:
    service = services["torchscript"]

    def ask(name: str) -> Any:
        return service.predict(service.find(None), photos[name].read_bytes(), {}, call()).prediction.predictions

    names = ["street", "astronaut", "chelsea", "coffee"]
    alone = {name: ask(name) for name in names}
    with ThreadPoolExecutor(8) as pool:
        for name, found in zip(names * 4, pool.map(ask, names * 4), strict=True):
            assert found == alone[name]


def test_a_script_that_is_not_what_model_json_declares_is_broken_before_a_caller_comes(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "own", "tf, raw", Input())
    (folder / "model.ts").write_bytes(script("def forward(self, x):\n    return x.flatten(2).mean(2), x\n"))
    declared = json.loads((folder / "model.json").read_text())
    artifact = {"file": "model.ts", "sha256": sha256_of(folder / "model.ts")}
    declared["networks"]["detector"]["artifacts"] = {"torchscript": artifact}
    (folder / "model.json").write_text(json.dumps(declared))
    served = Service(Settings(backend="torchscript", models=str(folder))).find(None)
    served.open(warm_up=True)
    assert served.state == "broken"
    assert "output 'boxes': model.json declares float32 [1, None, 4], found float32 [1, 3]" in str(served.reason)
