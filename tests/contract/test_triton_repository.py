"""Repositories that `model_server triton` writes, loaded by NVIDIA's own server.

The server of the wheel has the Python backend only: the configurations of the other platforms are parsed with Triton's
own schema, and not loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

# Triton's client has two extras, and fails otherwise than by ImportError without them.
for extra in ("gevent", "grpc"):
    pytest.importorskip(extra)

import msgspec  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from google.protobuf import text_format  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from tritonclient import grpc, http  # noqa: E402
from tritonclient.grpc import model_config_pb2  # noqa: E402
from tritonclient.utils import InferenceServerException, np_to_triton_dtype  # noqa: E402

from model_server.triton.config import Serving  # noqa: E402
from model_server.triton.repository import write_repository  # noqa: E402
from shared.backends.onnx import OnnxBackend  # noqa: E402
from shared.call import Call  # noqa: E402
from shared.forwarding import Limits, Reply, Request  # noqa: E402
from shared.local import LocalPredictor  # noqa: E402
from shared.manifest import read_bundle  # noqa: E402
from shared.service import Service  # noqa: E402
from shared.settings import Settings  # noqa: E402
from tests.graphs import Input  # noqa: E402
from tests.graphs import write_bundle as write_detector  # noqa: E402
from tests.model_servers import ModelServer, triton  # noqa: E402
from tests.servers import ROOT  # noqa: E402

pytestmark = pytest.mark.servers

COCO = ROOT / "model_server" / "models" / "coco-ssd-mobilenet-v2"
COMPOSED = COCO.with_name("coco-ssd-mobile-sam")
STREET = ROOT / "shared" / "web" / "static" / "samples" / "street.jpg"
DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")
DETECTORS = ("coco", "own")
Shape = list[int | None]
Array = npt.NDArray[Any]


def write_network(
    folder: Path, nodes: Sequence[Any], inputs: dict[str, tuple[str, Shape]], outputs: dict[str, tuple[str, Shape]],
    constants: Sequence[Any] = (),
) -> Path:  # fmt: skip
    """A bundle of one ONNX network; nothing here asks what its family makes of it."""
    taken, given = (
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            for name, (dtype, shape) in tensors.items()
        ]
        for tensors in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "network", taken, given, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    folder.mkdir()
    (folder / "model.onnx").write_bytes(data)
    specs = [
        [{"name": name, "dtype": dtype, "shape": shape} for name, (dtype, shape) in tensors.items()]
        for tensors in (inputs, outputs)
    ]
    artifact = {"file": "model.onnx", "sha256": hashlib.sha256(data).hexdigest()}
    network = {"inputs": specs[0], "outputs": specs[1], "artifacts": {"onnx": artifact}}
    manifest = {"name": folder.name, "task": "detection", "family": "yolo", "labels": [], "licence": "MIT"}
    (folder / "model.json").write_text(
        json.dumps({**manifest, "source": "made by the tests", "networks": {"net": network}})
    )
    return folder


def write_every_dtype(folder: Path) -> Path:
    return write_network(
        folder,
        [helper.make_node("Identity", [f"in_{dtype}"], [f"out_{dtype}"]) for dtype in DTYPES],
        {f"in_{dtype}": (dtype, [1, None, 3]) for dtype in DTYPES},
        {f"out_{dtype}": (dtype, [1, None, 3]) for dtype in DTYPES},
    )


def write_batched(folder: Path) -> Path:
    """Slow enough (a hundred products of large matrices) for requests to meet in the queue."""
    weights = np.random.default_rng(0).normal(scale=0.04, size=(600, 600)).astype(np.float32)
    steps = [helper.make_node("MatMul", [f"x{step}", "w"], [f"x{step + 1}"]) for step in range(100)]
    first = helper.make_node("Identity", ["x"], ["x0"])
    last = helper.make_node("Identity", ["x100"], ["y"])
    return write_network(
        folder,
        [first, *steps, last],
        {"x": ("float32", [None, None, 600])},
        {"y": ("float32", [None, None, 600])},
        [numpy_helper.from_array(weights, "w")],
    )


def write_picky(folder: Path) -> Path:
    """Looks its input up in a table of four rows: 4 and more make ONNX Runtime fail."""
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    return write_network(
        folder,
        [helper.make_node("Gather", ["table", "index"], ["row"])],
        {"index": ("int64", [None, 1])},
        {"row": ("float32", [None, 1, 2])},
        [numpy_helper.from_array(table, "table")],
    )


def write_masked(folder: Path) -> Path:
    """Puts a mask of free size behind the picture's channels, which takes a mask of the picture's own size."""
    return write_network(
        folder,
        [
            helper.make_node("Cast", ["pixel_mask"], ["mask"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "axes"], ["channel"]),
            helper.make_node("Concat", ["pixel_values", "channel"], ["y"], axis=1),
        ],
        {"pixel_values": ("float32", [None, 3, None, None]), "pixel_mask": ("int64", [None, None, None])},
        {"y": ("float32", [None, 4, None, None])},
        [numpy_helper.from_array(np.array([1]), "axes")],
    )


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "coco": COCO,
        "dtypes": write_every_dtype(folder / "dtypes"),
        "batched": write_batched(folder / "batched"),
        "picky": write_picky(folder / "picky"),
        "masked": write_masked(folder / "masked"),
        "own": write_detector(folder / "own", "torchvision", Input(hw=None)),
    }


@pytest.fixture(scope="module")
def repositories(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One of detectors, which take pictures as they came too, and one of networks that no family knows."""
    out = tmp_path_factory.mktemp("served")
    detectors = [bundles[name] for name in DETECTORS]
    others = [folder for name, folder in bundles.items() if name not in DETECTORS]
    write_repository([*detectors, COMPOSED], out / "detectors", Serving(platform="python", forward="encoded"))
    write_repository(others, out / "others", Serving(platform="python"))
    return [out / "detectors", out / "others"]


@pytest.fixture(scope="module")
def server(repositories: list[Path]) -> Iterator[ModelServer]:
    first, second = repositories
    flags = [f"--model-repository={second}", "--log-verbose=1", "--model-control-mode=explicit", "--load-model=*"]
    with triton(first, flags=flags) as running:
        yield running


@pytest.fixture
def client(server: ModelServer) -> Iterator[Any]:
    with http.InferenceServerClient(server.http_url.removeprefix("http://"), concurrency=32) as made:
        yield made


def tensor(name: str, array: Array, kind: Any = http) -> Any:
    made = kind.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def ask(client: Any, model: str, inputs: dict[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
    answer = client.infer(model, [tensor(name, array) for name, array in inputs.items()])
    return {name: answer.as_numpy(name) for name in outputs}


def same(given: dict[str, Array], bundle: Path, inputs: dict[str, Array]) -> bool:
    session = ort.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    wanted = session.run(list(given), inputs)
    return all(
        got.dtype == want.dtype and got.shape == want.shape and np.array_equal(got, want)
        for got, want in zip(given.values(), wanted, strict=True)
    )


def ask_at_once(server: ModelServer, model: str, inputs: Sequence[dict[str, Array]], output: str) -> list[Any]:
    """For each, its output or the error; by gRPC, whose client is made for threads."""
    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:

        def answer(arrays: dict[str, Array]) -> Any:
            try:
                return client.infer(model, [tensor(*one, kind=grpc) for one in arrays.items()]).as_numpy(output)
            except InferenceServerException as error:
                return error

        with ThreadPoolExecutor(len(inputs)) as pool:
            return list(pool.map(answer, inputs))


def ask_encoded(client: Any, model: str, encoded: bytes, **rest: Any) -> tuple[Reply, bytes]:
    request = msgspec.json.encode(Request("r1", 30.0, Limits(max_pixels=10**8), **rest))
    inputs = {"picture": np.frombuffer(encoded, np.uint8), "request": np.frombuffer(request, np.uint8)}
    outputs = ask(client, model, inputs, ["answer", "drawn"])
    return msgspec.json.decode(outputs["answer"].tobytes(), type=Reply), outputs["drawn"].tobytes()


def counts(client: Any, model: str) -> tuple[int, int]:
    (statistics,) = client.get_inference_statistics(model)["model_stats"]
    return int(statistics["inference_count"]), int(statistics["execution_count"])


def test_every_network_is_served_as_it_is_declared(client: Any, bundles: dict[str, Path]) -> None:
    for folder in bundles.values():
        bundle = read_bundle(folder)
        for name in bundle.model.networks:
            network = bundle.network(name)
            found = client.get_model_metadata(network.served_as)
            for kind, specs in (("inputs", network.inputs), ("outputs", network.outputs)):
                assert found[kind] == [
                    {
                        "name": spec.name,
                        "datatype": np_to_triton_dtype(np.dtype(spec.dtype)),
                        "shape": [-1 if axis is None else axis for axis in spec.shape],
                    }
                    for spec in specs
                ]


def test_the_detector_answers_as_onnx_runtime_itself(client: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), np.uint8)
    answer = ask(client, "coco-ssd-mobilenet-v2.detector", {"image": pixels}, ["boxes", "scores"])
    assert same(answer, COCO, {"image": pixels})


@pytest.mark.parametrize("count", [5, 0])
def test_every_dtype_passes_unchanged_and_so_does_nothing(client: Any, count: int) -> None:
    values = np.random.default_rng(1).integers(0, 2, (1, count, 3))
    given = {f"in_{dtype}": values.astype(dtype) for dtype in DTYPES}
    answer = ask(client, "dtypes.net", given, [f"out_{dtype}" for dtype in DTYPES])
    for dtype in DTYPES:
        assert answer[f"out_{dtype}"].dtype == dtype
        assert np.array_equal(answer[f"out_{dtype}"], given[f"in_{dtype}"])


def test_a_picture_without_a_find_is_an_empty_tensor(client: Any, bundles: dict[str, Path]) -> None:
    black = {"image": np.zeros((1, 3, 64, 64), np.float32)}
    answer = ask(client, "own.detector", black, ["boxes", "labels", "scores"])
    assert answer["boxes"].shape == (0, 4)
    assert same(answer, bundles["own"], black)


def test_requests_that_come_together_are_run_as_one(client: Any, server: ModelServer, bundles: dict[str, Path]) -> None:
    inputs = [np.random.default_rng(seed).normal(size=(1, 4, 600)).astype(np.float32) for seed in range(24)]
    before = counts(client, "batched.net")
    answers = ask_at_once(server, "batched.net", [{"x": x} for x in inputs], "y")
    inferences, executions = (after - was for after, was in zip(counts(client, "batched.net"), before, strict=True))
    session = ort.InferenceSession(str(bundles["batched"] / "model.onnx"), providers=["CPUExecutionProvider"])
    for x, answer in zip(inputs, answers, strict=True):
        np.testing.assert_allclose(answer, session.run(["y"], {"x": x})[0], rtol=1e-3, atol=1e-4)
    assert inferences == len(inputs)
    assert executions < inferences


def test_a_request_of_several_rows_gets_its_own_rows(client: Any) -> None:
    answer = ask(client, "picky.net", {"index": np.array([[3], [0], [1]])}, ["row"])
    assert answer["row"].tolist() == [[[6, 7]], [[0, 1]], [[2, 3]]]


def test_one_request_that_fails_fails_alone_and_the_model_lives(client: Any, server: ModelServer) -> None:
    with pytest.raises(InferenceServerException, match="wrong_answer: the model failed on this picture"):
        ask(client, "picky.net", {"index": np.array([[4]])}, ["row"])

    rows = [0, 4, 1, 2] * 16
    answers = ask_at_once(server, "picky.net", [{"index": np.array([[row]])} for row in rows], "row")
    failed = [isinstance(answer, InferenceServerException) for answer in answers]
    assert failed == [row == 4 for row in rows]
    assert [answer[0, 0, 0] for answer in answers if isinstance(answer, np.ndarray)] == [0, 2, 4] * 16


def test_every_network_is_warmed_up_before_it_is_ready(server: ModelServer, bundles: dict[str, Path]) -> None:
    for folder in bundles.values():
        (name,) = (read_bundle(folder).network(network).served_as for network in read_bundle(folder).model.networks)
        assert f"model '{name}' instance {name}_0_0 is running warmup sample 'zeros'" in server.log


def test_a_picture_as_it_came_gets_the_answer_of_a_process_that_serves_by_itself(client: Any) -> None:
    predictor = LocalPredictor(read_bundle(COCO), lambda: OnnxBackend(Settings()), max_pixels=10**8)
    predictor.open(warm_up=False)
    own = predictor.predict(STREET.read_bytes(), predictor.parse({}), Call("own", 60), "png", lambda call: None)
    reply, drawn = ask_encoded(client, COCO.name, STREET.read_bytes(), picture="png")
    answer = reply.found("detection")
    assert len(answer.predictions) > 3
    assert answer == own.prediction
    assert drawn == own.picture


def test_two_bundles_put_together_answer_by_their_served_networks(server: ModelServer) -> None:
    found = []
    for own in ({}, {"backend": "triton", "backend_url": server.http_url}):
        service = Service(msgspec.convert({"models": str(COMPOSED), **own}, Settings))
        answer = service.predict(service.find(None), STREET.read_bytes(), {}, Call("r1", 60))
        found.append(answer.prediction)
    assert len(found[0].predictions) > 3
    assert found[0] == found[1]


def test_two_bundles_put_together_answer_a_picture_as_it_came(client: Any) -> None:
    predictor = LocalPredictor(read_bundle(COMPOSED), lambda: OnnxBackend(Settings()), max_pixels=10**8)
    predictor.open(warm_up=False)
    own = predictor.predict(STREET.read_bytes(), predictor.parse({}), Call("own", 60), None, lambda call: None)
    reply, _ = ask_encoded(client, COMPOSED.name, STREET.read_bytes())
    answer = reply.found("instance-segmentation")
    assert len(answer.predictions) > 3
    assert answer == own.prediction


def test_a_picture_as_it_came_goes_through_the_served_network(client: Any) -> None:
    before, _ = counts(client, "coco-ssd-mobilenet-v2.detector")
    ask_encoded(client, COCO.name, STREET.read_bytes())
    assert counts(client, "coco-ssd-mobilenet-v2.detector")[0] == before + 1


def test_what_is_no_picture_is_told_in_the_answer(client: Any) -> None:
    reply, drawn = ask_encoded(client, COCO.name, b"no picture")
    assert reply.failed is not None
    assert (reply.failed.code, drawn) == ("not_an_image", b"")


def test_a_network_that_is_gone_is_told_in_the_answer_until_it_is_back(client: Any) -> None:
    client.unload_model("coco-ssd-mobilenet-v2.detector")
    reply, _ = ask_encoded(client, COCO.name, STREET.read_bytes())
    client.load_model("coco-ssd-mobilenet-v2.detector")
    assert reply.failed is not None
    assert reply.failed.code == "server_busy"
    reply, _ = ask_encoded(client, COCO.name, STREET.read_bytes())
    assert reply.failed is None


def test_loopback_is_all_that_is_listened_on(server: ModelServer) -> None:
    inodes = set()
    for link in (link for pid in server.pids for link in Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # closed in the meantime
            inodes.add(link.readlink().name.removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    listening = [row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]
    assert listening
    assert set(listening) <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_other_platforms_fit_tritons_own_schema(device: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    accelerator: Any = "tensorrt" if device == "gpu" else "openvino"
    serving = Serving(platform="onnx", device=device, accelerator=accelerator, instances=2)
    write_repository(list(bundles.values()), tmp_path / "out", serving)
    for path in (tmp_path / "out").glob("*/config.pbtxt"):
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        assert (config.name, config.platform) == (path.parent.name, "onnxruntime_onnx")
        assert (path.parent / "1" / "model.onnx").is_file()
        assert config.instance_group[0].count == 2


def test_a_server_whose_memory_was_shared_leaves_none_behind(repositories: list[Path]) -> None:
    def regions() -> set[str]:
        return {path.name for path in Path("/dev/shm").glob("thinlens-*")}

    before = regions()
    with triton(repositories[1]) as running:
        during = regions() - before
        running.kill()
    assert during
    assert not during & regions()
