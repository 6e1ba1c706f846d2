"""`describe` for TorchScript: what is asked for, what a run shows, and scripts added to a bundle of another export."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from model_server.cli import main
from shared.manifest import read_bundle
from tests.graphs import Input, write_bundle

torch: Any = pytest.importorskip("torch")
Tensor: Any = torch.Tensor

pytestmark = pytest.mark.torch

YOLO = ["--family", "yolo", "--labels", "a,b,c"]
PICTURE = ["--input", "float32[1,3,64,96]"]


class Pair(NamedTuple):
    scores: torch.Tensor
    boxes: torch.Tensor


class Named(torch.nn.Module):  # type: ignore[misc]
    def forward(self, view: Tensor) -> Pair:
        return Pair(view.mean((2, 3)), view[:, 0, :5, :4])


@contextmanager
def deprecated() -> Iterator[None]:
    """PyTorch deprecates every way to make a TorchScript file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
        yield


def script(path: Path, answer: str, arguments: str = "view", **extra: str) -> Path:
    """A TorchScript file whose forward gives `answer`."""
    with deprecated():
        module = type("Own", (torch.jit.ScriptModule,), {})()  # what is defined is its class's, too
        module.define(f"def forward(self, {arguments}):\n    return {answer}\n")
        torch.jit.save(module, path, _extra_files=extra)
    return path


def described(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, Any], str]:
    """The network of the draft, and what is to be looked over."""
    assert main(["describe", *map(str, arguments)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    network: dict[str, Any] = json.loads(printed.out)["networks"]["detector"]
    return network, printed.err


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command fails with."""
    assert main(["describe", *map(str, arguments)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def shapes(tensors: list[dict[str, Any]]) -> dict[str, list[int | None]]:
    return {tensor["name"]: tensor["shape"] for tensor in tensors}


# --- inputs


def test_an_input_without_a_name_has_the_scripts_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, _ = described(capsys, script(tmp_path / "own.ts", "view[:, 0]"), *YOLO, *PICTURE)
    assert network["inputs"] == [{"name": "view", "dtype": "float32", "shape": [1, 3, 64, 96]}]
    assert network["outputs"] == [{"name": "output0", "dtype": "float32", "shape": [1, 64, 96]}]


def test_an_input_may_have_any_name_by_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(tmp_path / "own.ts", "view[:, 0]")
    network, notes = described(capsys, file, *YOLO, "--input", "images=float32[1,3,64,96]")
    assert shapes(network["inputs"]) == {"images": [1, 3, 64, 96]}
    assert "the script takes (view: Tensor); the inputs go there in their order" in notes


def test_inputs_by_the_scripts_names_are_declared_in_its_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = script(tmp_path / "own.ts", "view[:, 0] * side[0, 0]", "side, view")
    given = ["--input", "view=float32[1,3,64,96]", "--input", "side=int64[1,2]"]
    network, _ = described(capsys, file, *YOLO, *given)
    assert [(one["name"], one.get("role")) for one in network["inputs"]] == [("side", "size"), ("view", None)]


def test_an_input_left_out_between_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(tmp_path / "own.ts", "view", "view, mask: Optional[Tensor] = None, side: Optional[Tensor] = None")
    given = ["--input", "view=float32[1,3,64,96]", "--input", "side=int64[1,2]"]
    assert "give them in this order, leaving none out between" in failed(capsys, file, *YOLO, *given)


def test_a_list_of_pictures_is_one_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(tmp_path / "own.ts", "views[0][:1]", "views: List[Tensor]")
    network, _ = described(capsys, file, *YOLO, "--input", "float32[3,null,null]")
    assert shapes(network["inputs"]) == {"views": [3, None, None]}


REFUSED = {
    "none": ([], "it takes (view: Tensor): give one for each, in this order"),
    "too many": ([*PICTURE, *PICTURE], "it takes (view: Tensor): give one for each, in this order"),
    "no picture": (["--input", "float32[3]"], "the input has shape [3]; expected a picture"),
    "a signature": ([*PICTURE, "--signature", "x"], "--signature is for a SavedModel"),
    "too many outputs": ([*PICTURE, "--output", "a", "--output", "b"], "begins with 1 tensors, expected 2"),
    "a role of nothing": ([*PICTURE, "--role", "x=boxes"], "--role: there is no 'x', only view, output0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_do_not_fit_the_script_are_told(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, message = REFUSED[case]
    assert message in failed(capsys, script(tmp_path / "own.ts", "view[:, 0]"), *YOLO, *given)


# --- outputs


def test_axes_that_change_with_a_free_one_are_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(tmp_path / "own.ts", "view.flatten(2), view[:, 0, :7, :5], view.mean()")
    free = ["--input", "float32[null,3,null,null]"]
    network, notes = described(capsys, file, *YOLO, *free)
    assert shapes(network["outputs"]) == {"output0": [None, 3, None], "output1": [None, 7, 5], "output2": []}
    assert "the script's outputs have no names: --output gives them" in notes


def test_an_axis_that_changes_with_the_picture_is_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = "view.reshape(-1, 3)[view.flatten() .reshape(-1, 3)[:, 0] > 0.6]"
    network, _ = described(capsys, script(tmp_path / "own.ts", answer), *YOLO, *PICTURE)
    assert shapes(network["outputs"]) == {"output0": [None, 3]}


def test_a_size_that_the_script_cannot_have_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(tmp_path / "own.ts", "view.reshape(1, 3, 640, 640)")
    error = failed(capsys, file, *YOLO, "--input", "float32[1,3,null,null]")
    assert "the script fails on view=float32[1, 3, 320, 320]: " in error
    assert "an axis that may not have any size has to be given" in error


NAMED = {
    "a dict": '{"scores": view.mean((2, 3)), "boxes": view[:, 0, :5, :4]}',
    "torchvision's": '{"loss": view}, [{"scores": view.mean((2, 3)), "boxes": view[:, 0, :5, :4]}]',
}


@pytest.mark.parametrize("form", [*NAMED, "a named tuple"])
def test_outputs_that_have_names_keep_them(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own.ts"
    if form in NAMED:
        script(file, NAMED[form])
    else:
        with deprecated():
            torch.jit.save(torch.jit.script(Named()), file)
    network, notes = described(capsys, file, *YOLO, *PICTURE)
    assert shapes(network["outputs"]) == {"scores": [1, 3], "boxes": [1, 5, 4]}
    assert "have no names" not in notes
    network, _ = described(capsys, file, *YOLO, *PICTURE, "--output", "boxes", "--role", "boxes=detections")
    assert network["outputs"] == [{"name": "boxes", "dtype": "float32", "shape": [1, 5, 4], "role": "detections"}]


def test_outputs_without_names_get_those_that_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(tmp_path / "own.ts", "view[:, 0], view[:, 1, :2], [view]")
    network, _ = described(capsys, file, *YOLO, *PICTURE, "--output", "first", "--output", "second")
    assert shapes(network["outputs"]) == {"first": [1, 64, 96], "second": [1, 2, 96]}


# --- labels, and files that are no TorchScript


def test_labels_that_an_exporter_has_left_in_the_file_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = json.dumps({"stride": 32, "names": {"0": "cat", "2": "dog"}})
    file = script(tmp_path / "own.torchscript", "view[:, 0]", **{"config.txt": metadata})
    assert main(["describe", str(file), "--family", "yolo", *PICTURE]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["cat", None, "dog"]


@pytest.mark.parametrize("content", ["nonsense", "[1]", '{"names": 3}'])
def test_labels_that_cannot_be_read_are_to_be_given(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = script(tmp_path / "own.ts", "view[:, 0]", **{"config.txt": content})
    assert "give --labels" in failed(capsys, file, "--family", "yolo", *PICTURE)


def test_weights_alone_are_refused_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "own.pth")
    error = failed(capsys, tmp_path / "own.pth", *YOLO)
    assert "it holds a pickled module or weights, as torch.save writes them" in error
    assert "`convert --module`" in error


def test_an_exported_program_is_refused_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "own.pt2")
    error = failed(capsys, tmp_path / "own.pt2", *YOLO)
    assert "it is of torch.export" in error
    assert "`convert --module`" in error


def test_a_damaged_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(tmp_path / "own.ts", "view")
    file.write_bytes(file.read_bytes()[:400])
    assert "it is no archive, or a damaged one" in failed(capsys, file, *YOLO)


# --- added to a bundle


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A bundle of one ONNX file: image [1, 3, 96, 160] -> output0 [1, 6, 8]."""
    return write_bundle(tmp_path / "colours", "yolo v5", Input((96, 160)), resize="letterbox")


def test_a_script_is_added_beside_the_onnx_file(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(colours / "own.ts", "x[:, 0, :6, :8]", "x")
    assert main(["describe", str(file), "--add-to", str(colours)]) == 0
    assert list(read_bundle(colours).model.networks["detector"].artifacts) == ["onnx", "torchscript"]
    assert f"`parity {colours} --backends onnx,torchscript`" in capsys.readouterr().out


DIFFERING = {
    "a shape": ("x[:, 0, :6, :9]", "x", "output 'output0': model.json declares float32 [1, None, 8], found"),
    "a dtype": ("x[:, 0, :6, :8].double()", "x", "found float64 [1, 6, 8]"),
    "the inputs": ("x[:, 0, :6, :8]", "x, y", "inputs: the script takes ['x: Tensor', 'y: Tensor']"),
    "the size": ("x.reshape(1, 3, 64, 64)[:, 0, :6, :8]", "x", "has not yet answered to what model.json declares"),
}


@pytest.mark.parametrize("case", DIFFERING)
def test_a_script_that_differs_is_not_added(case: str, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer, arguments, message = DIFFERING[case]
    before = (colours / "model.json").read_bytes()
    error = failed(capsys, script(colours / "own.ts", answer, arguments), "--add-to", colours)
    assert error.startswith("model_server: not added: ")
    assert message in error
    assert (colours / "model.json").read_bytes() == before
