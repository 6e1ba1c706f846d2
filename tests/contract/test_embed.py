"""`embed`: a folder of pictures, prepared for the first click on each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile

import pytest

from model_server.cli import main
from shared import backends
from shared.call import Call
from shared.embeddings import Memo
from shared.local import LocalPredictor
from shared.manifest import read_bundle
from shared.settings import Settings


@pytest.fixture
def pictures(tmp_path: Path, photos: Mapping[str, Path]) -> Path:
    """A folder with two small photographs, one of them in a folder of its own."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    copyfile(photos["astronaut-small"], folder / "astronaut.jpg")
    copyfile(photos["coffee-small"], folder / "more" / "coffee.jpg")
    return folder


def prepared(out: Path) -> list[Path]:
    return sorted(out.glob("*.embedding"))


def test_every_picture_is_prepared_once(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["embed", str(pictures), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 2 pictures prepared\n"
    before = [path.stat().st_mtime_ns for path in prepared(out)]
    assert main(["embed", str(pictures), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 0 pictures prepared, 2 were there before\n"
    assert [path.stat().st_mtime_ns for path in prepared(out)] == before
    assert len(before) == 2


def test_an_interrupted_run_goes_on_where_it_was(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(["embed", str(pictures), "--out", str(out)])
    prepared(out)[0].write_bytes(b"half")
    prepared(out)[1].unlink()
    capsys.readouterr()
    main(["embed", str(pictures), "--out", str(out)])
    assert capsys.readouterr().out == f"{out}: 2 pictures prepared\n"


def test_a_broken_picture_is_named_and_the_rest_go_on(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.jpg").write_bytes((pictures / "astronaut.jpg").read_bytes()[:200])
    (pictures / "note.txt").write_text("no picture")
    assert main(["embed", str(pictures), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "broken.jpg: the picture is damaged" in said.err
    assert "note.txt: the bytes are not" in said.err
    assert said.out.endswith("2 pictures prepared, 2 could not be\n")


def test_the_server_clicks_on_a_prepared_picture_without_its_encoder(pictures: Path, tmp_path: Path) -> None:
    main(["embed", str(pictures), "--out", str(tmp_path / "out")])
    settings = Settings.from_environ({})
    bundle = read_bundle(Path(settings.models) / "mobile-sam")
    backend, memo = backends.connect("onnx", settings), Memo(10_000_000, tmp_path / "out")
    predictor = LocalPredictor(bundle, lambda: backend, max_pixels=10**6, memo=memo)
    predictor.open(warm_up=False)
    call = Call("test", 60)
    source = (pictures / "astronaut.jpg").read_bytes()
    found = predictor.predict(source, predictor.parse({"points": [[110, 40]]}), call, None, lambda call: None)
    assert found.prediction.predictions
    assert "encode" not in call.stages_ms
    assert "decode" not in call.stages_ms


def test_the_setting_says_where_to(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THINLENS_EMBEDDINGS", str(tmp_path / "kept"))
    assert main(["embed", str(pictures)]) == 0
    assert len(prepared(tmp_path / "kept")) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "none-there", "--out", "x"], "there is no such folder"),
        (["embed", ".", "--out", "x", "--bundle", "coco-ssd-mobilenet-v2"], "has no encoder"),
    ],
)
def test_what_cannot_be_embedded_is_said_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert words in capsys.readouterr().err


def test_without_a_place_to_put_them_it_is_wrong_usage(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["embed", str(pictures)])
    assert caught.value.code == 2
    assert "THINLENS_EMBEDDINGS" in capsys.readouterr().err
