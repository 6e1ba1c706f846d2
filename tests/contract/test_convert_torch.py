"""A user's torch.nn.Module, and its TorchScript: to ONNX and TorchScript, each finding the same things."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from model_server.cli import main
from model_server.manifests import problems
from shared.call import Call
from shared.service import Service
from shared.settings import Settings
from tests.contract.test_bring_your_own import SCENES, assert_found
from tests.torch_detectors import TAKEN, write_bundle

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]
BACKENDS = ("onnx", "torchscript")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("square", "wide", "tall"):
        (folder / f"{name}.png").write_bytes(SCENES[name].encoded())
    return folder


def convert(source: Path, out: Path, scenes: Path, to: str, *options: str) -> int:
    return main(["convert", str(source), "--to", to, "--into", str(out), "--pictures", str(scenes), *options])


def module(name: str) -> tuple[str, str]:
    return "--module", f"tests.torch_detectors:{name}"


def assert_right(folder: Path, backend: str, name: str = "tall") -> None:
    """The bundle is whole, and the service finds what is there."""
    assert problems(folder) == []
    service = Service(Settings(models=str(folder), backend="onnx" if backend == "onnx" else "torchscript", threads=1))
    answer = service.predict(service.find(None), SCENES[name].encoded(), {}, Call("test", 60))
    assert_found(answer.prediction, SCENES[name], (96, 128))


def source_of(folder: Path, backend: str) -> str:
    declared = json.loads((folder / "model.json").read_bytes())
    return str(declared["networks"]["detector"]["artifacts"][backend]["source"])


@pytest.mark.parametrize("name", ["plain", "named", "unscriptable"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_module_is_converted_under_the_declared_names(backend: str, name: str, tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own")
    assert convert(tmp_path / "own", tmp_path / "new", scenes, backend, *module(name)) == 0
    assert_right(tmp_path / "new", backend)


@pytest.mark.parametrize("name", ["plain", "named"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_normalisation_goes_into_either(backend: str, name: str, tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own")
    options = (*module(name), "--fold-normalisation")
    assert convert(tmp_path / "own", tmp_path / "new", scenes, backend, *options) == 0
    declared = json.loads((tmp_path / "new" / "model.json").read_bytes())
    assert declared["networks"]["detector"]["inputs"][0]["dtype"] == "uint8"
    assert_right(tmp_path / "new", backend)


def test_free_axes_of_model_json_are_free_in_the_graph(tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own")
    assert convert(tmp_path / "own", tmp_path / "new", scenes, "onnx", *module("plain")) == 0
    path = tmp_path / "new" / "model.json"
    declared = json.loads(path.read_bytes())
    path.write_text(json.dumps({**declared, "preprocess": {**declared["preprocess"], "size": [224, 160]}}))
    assert_right(tmp_path / "new", "onnx")


def test_a_fixed_declaration_is_freed_where_that_is_asked(tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own", replace(TAKEN, hw=(96, 128)))
    assert convert(tmp_path / "own", tmp_path / "new", scenes, "onnx", *module("plain"), "--free-size") == 0
    declared = json.loads((tmp_path / "new" / "model.json").read_bytes())
    assert declared["networks"]["detector"]["inputs"][0]["shape"] == [1, 3, None, None]


def test_torchscript_becomes_onnx_by_the_older_exporter(tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own")
    assert convert(tmp_path / "own", tmp_path / "script", scenes, "torchscript", *module("plain")) == 0
    assert convert(tmp_path / "script", tmp_path / "new", scenes, "onnx") == 0
    assert "its older exporter" in source_of(tmp_path / "new", "onnx")
    assert_right(tmp_path / "new", "onnx")


def test_what_cannot_be_scripted_is_traced_and_says_so(tmp_path: Path, scenes: Path) -> None:
    write_bundle(tmp_path / "own")
    assert convert(tmp_path / "own", tmp_path / "new", scenes, "torchscript", *module("unscriptable")) == 0
    assert "traced on one picture" in source_of(tmp_path / "new", "torchscript")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one_size", "the module fails on what model.json declares: shape '[1, 3, 96, 96]' is invalid"),
        ("no_module", "gives a str, expected a torch.nn.Module"),
        ("coarse", "the module fails on what model.json declares: Got unsupported ScalarType BFloat16"),
        ("forgetful", "the module fails on what model.json declares: 'Forgetful' object has no attribute 'forgotten'"),
        ("failing", "--module: tests.torch_detectors:failing fails: KeyError: 'weights'"),
        ("leaving", "--module: tests.torch_detectors:leaving fails: SystemExit: 3"),
        ("absent", "--module: cannot load 'tests.torch_detectors:absent'"),
    ],
)
def test_a_module_that_cannot_be_is_told(
    name: str, message: str, tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "own")
    assert convert(tmp_path / "own", tmp_path / "new", scenes, "onnx", *module(name)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["def broken(:", "raise SystemExit(3)"])
def test_a_module_s_file_that_cannot_be_run_is_told(
    text: str,
    tmp_path: Path,
    scenes: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_bundle(tmp_path / "own")
    (tmp_path / "unrunnable.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert convert(tmp_path / "own", tmp_path / "new", scenes, "onnx", "--module", "unrunnable:make") == 1
    assert "--module: cannot load 'unrunnable:make'" in capsys.readouterr().err


def test_a_normalisation_that_is_not_the_modules_own_is_found_out(
    tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "own")
    assert convert(tmp_path / "own", tmp_path / "new", scenes, "onnx", *module("raw")) == 1
    assert "nothing was found on any picture" in capsys.readouterr().out


def test_backends_that_differ_are_found_out(tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "own")
    for backend, name in (("onnx", "plain"), ("torchscript", "surer")):
        assert convert(tmp_path / "own", tmp_path / backend, scenes, backend, *module(name)) == 0
    merged = json.loads((tmp_path / "onnx" / "model.json").read_bytes())
    other = json.loads((tmp_path / "torchscript" / "model.json").read_bytes())
    merged["networks"]["detector"]["artifacts"] |= other["networks"]["detector"]["artifacts"]
    (tmp_path / "onnx" / "model.json").write_text(json.dumps(merged))
    (tmp_path / "torchscript" / "model.pt").rename(tmp_path / "onnx" / "model.pt")
    capsys.readouterr()
    assert main(["parity", str(tmp_path / "onnx"), "--backends", "torchscript", "--pictures", str(scenes)]) == 1
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[1:3] == ["torchscript", "differs"]
