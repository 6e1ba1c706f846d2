"""Whether answers agree, and which backends are asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image as Pillow

from model_server.cli import main
from model_server.comparison.agreement import EXACT, agree, match
from model_server.comparison.answering import Failed, Measured, Opened, Predicted
from model_server.comparison.arms import Where, arm, settings
from model_server.comparison.parity import Plan, chosen_backends, parity
from model_server.comparison.photos import SAMPLES, pictures
from model_server.failures import Stopped
from shared.predictions import Detection
from tests.contract.test_bring_your_own import SCENES
from tests.graphs import Input, write_bundle


def found(label: str, score: float, *box: float) -> Detection:
    x1, y1, x2, y2 = box
    return Detection(label, 0, score, (x1, y1, x2, y2))


CAT, DOG = found("cat", 0.9, 0, 0, 10, 10), found("dog", 0.8, 20, 20, 40, 40)


def test_equal_answers_agree() -> None:
    agreement = agree([([CAT, DOG], [CAT, DOG])])
    assert (agreement.matched, agreement.missing, agreement.extra) == (2, 0, 0)
    assert agreement.within(EXACT)


def test_the_order_does_not_matter() -> None:
    assert agree([([CAT, DOG], [DOG, CAT])]).within(EXACT)


def test_another_label_is_another_thing() -> None:
    agreement = agree([([CAT], [found("dog", 0.9, 0, 0, 10, 10)])])
    assert (agreement.matched, agreement.missing, agreement.extra, agreement.share) == (0, 1, 1, 0.0)


def test_a_detection_is_in_one_pair_at_most_and_the_closest_wins() -> None:
    near, nearer = found("cat", 0.5, 0, 0, 10, 8), found("cat", 0.6, 0, 0, 10, 9)
    assert match([CAT], [near, nearer]) == [(CAT, nearer)]


def test_boxes_that_overlap_by_less_than_half_are_not_the_same() -> None:
    assert match([CAT], [found("cat", 0.9, 0, 0, 10, 4.9)]) == []


@pytest.mark.parametrize("other", [found("cat", 0.902, 0, 0, 10, 10), found("cat", 0.9, 0, 0, 10.6, 10)])
def test_a_score_or_a_side_too_far_off_is_no_agreement(other: Detection) -> None:
    assert not agree([([CAT], [other])]).within(EXACT)


def test_the_figures_are_the_worst_over_all_pictures() -> None:
    agreement = agree([([CAT], [CAT]), ([DOG], [found("dog", 0.7, 20, 20, 40, 38)])])
    assert (round(agreement.max_score, 6), round(agreement.mean_score, 6), agreement.max_px) == (0.1, 0.05, 2.0)
    assert agreement.mean_iou == pytest.approx(0.95)


def test_what_lies_at_the_threshold_may_be_missing() -> None:
    faint = found("cat", 0.5004, 0, 0, 10, 10)
    assert agree([([faint], [])], at_threshold=0.501).within(EXACT)
    assert not agree([([faint], [])], at_threshold=0.5).within(EXACT)


def test_servers_are_asked_by_every_protocol() -> None:
    assert chosen_backends("onnx,triton") == (("onnx", "triton-http", "triton-grpc", "triton-encoded"), True)


def test_an_unknown_backend_is_told() -> None:
    with pytest.raises(Stopped, match="--backends: unknown 'onix'; did you mean 'onnx'"):
        chosen_backends("onix")


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="there are no pictures in it"):
        pictures(tmp_path)


def test_the_sample_photographs_are_the_usual_pictures() -> None:
    assert {path.parent for path in pictures(None)} == {SAMPLES}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("square", "wide"):
        (folder / f"{name}.png").write_bytes(SCENES[name].encoded())
    return tuple(pictures(folder))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), "yolo v8", Input(), resize="letterbox")


def test_a_backend_answers_from_its_own_process(bundle: Path, scenes: tuple[Path, ...]) -> None:
    with arm() as process:
        assert isinstance(process.open(settings("onnx", bundle, Where(), threads=1)), Opened)
        answer = process.predict(scenes[0])
        assert isinstance(answer, Predicted)
        assert [one.label for one in answer.detections] == ["red", "blue"]
        memory = process.measure()
        assert isinstance(memory, Measured)
        assert memory.peak_mb >= memory.resident_mb > 10


def test_a_process_that_cannot_begin_says_how_it_ended(bundle: Path) -> None:
    with arm("/bin/false") as process:
        opened = process.open(settings("onnx", bundle, Where(), threads=1))
        assert opened == Failed("its process ended with status 1: it said nothing")


def planned(backends: str, scenes: tuple[Path, ...], **where: dict[str, str]) -> Plan:
    return Plan(*chosen_backends(backends), scenes, Where(**where), EXACT, threads=1)


def test_backends_that_are_not_here_are_said_to_be_so(bundle: Path, scenes: tuple[Path, ...]) -> None:
    table, good = parity([bundle], planned("all", scenes))
    assert not good
    assert "4 found in 2 pictures" in table
    assert "the bundle has no artifact for it (detector)" in table
    assert "no model server: give --triton-grpc" in table
    assert table.endswith("nothing was compared: no second backend has answered")


def test_one_backend_that_was_named_may_stand_alone(bundle: Path, scenes: tuple[Path, ...]) -> None:
    table, good = parity([bundle], planned("onnx", scenes))
    assert good
    assert "nothing was compared" not in table


def test_without_a_bundle_nothing_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THINLENS_MODELS", str(tmp_path / "away"))
    assert main(["parity"]) == 1
    assert "nothing was compared: there is no bundle in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        ["--tolerance-px", "nan"],
        ["--tolerance-score", "-1"],
        ["--threads", "-3"],
        ["--triton-http", "localhost:8000"],
        ["--triton-grpc", "http://localhost:8000"],
    ],
)
def test_options_that_cannot_be_are_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["parity", "=".join(given)])
    assert f"argument {given[0]}: expected" in capsys.readouterr().err


def test_a_backend_that_was_named_and_is_not_here_is_a_failure(bundle: Path, scenes: tuple[Path, ...]) -> None:
    table, good = parity([bundle], planned("torchscript", scenes))
    assert not good
    assert "reference" not in [line.split()[1] for line in table.splitlines()]


def test_a_model_server_that_is_away_is_a_failure(bundle: Path, scenes: tuple[Path, ...]) -> None:
    table, good = parity([bundle], planned("all", scenes, urls={"triton-http": "http://127.0.0.1:9"}))
    assert not good
    assert [line.split()[2] for line in table.splitlines() if " triton-http " in line] == ["failed"]


def test_pictures_without_a_detection_prove_nothing(bundle: Path, tmp_path: Path) -> None:
    Pillow.new("RGB", (50, 40)).save(tmp_path / "black.png")
    table, good = parity([bundle], planned("all", (tmp_path / "black.png",)))
    assert not good
    assert "nothing found: this proves nothing" in table


def test_an_interpreter_is_chosen_for_a_backend(bundle: Path, scenes: tuple[Path, ...]) -> None:
    assert parity([bundle], planned("onnx", scenes, pythons={"onnx": sys.executable}))[1]
    assert not parity([bundle], planned("onnx", scenes, pythons={"onnx": "/bin/false"}))[1]
