"""`compare` against a real Triton, with its page and its plot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from model_server.cli import main
from model_server.triton.config import Serving
from model_server.triton.repository import write_repository
from tests.model_servers import triton
from tests.servers import ROOT

pytestmark = pytest.mark.servers

COCO = ROOT / "model_server" / "models" / "coco-ssd-mobilenet-v2"
STREET = ROOT / "shared" / "web" / "static" / "samples" / "street-small.jpg"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `compare` writes of the detector in the function and on a Triton."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "pictures").mkdir()
    (folder / "pictures" / STREET.name).symlink_to(STREET)
    write_repository([COCO], folder / "repository", Serving(platform="python", forward="encoded"))
    with triton(folder / "repository") as server:
        given = ["--backends", "onnx,triton-http,triton-encoded", "--rounds", "1"]
        given += ["--triton-http", server.http_url, "--triton-encoded", server.http_url]
        given += ["--server-pid", f"triton={server.pids[0]}", "--pictures", str(folder / "pictures")]
        assert main(["compare", str(COCO), *given, "--into", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def rows(written: Path) -> dict[str, dict[str, float]]:
    """The page's first table, by backend and column; what is not known is left out."""
    lines = [line.strip("| ").split(" | ") for line in (written / "compare.md").read_text().splitlines() if "|" in line]
    head, _, *cells = lines[:5]
    numbers = [{name: row[at].replace(",", "") for at, name in enumerate(head)} for row in cells]
    return {row["backend"]: {name: float(cell) for name, cell in row.items() if cell[:1].isdigit()} for row in numbers}


def test_what_is_measured_is_written(rows: dict[str, dict[str, float]]) -> None:
    assert list(rows) == ["onnx", "triton-http", "triton-encoded"]
    assert rows["onnx"]["parameters"] == 4_491_322
    assert {"model MB", "parameters", "server MB"} & set(rows["triton-http"]) == {"server MB"}


def test_a_function_without_the_model_holds_less_memory(rows: dict[str, dict[str, float]]) -> None:
    assert rows["triton-encoded"]["peak MB"] < rows["triton-http"]["peak MB"] < rows["onnx"]["peak MB"]


def test_the_plot_holds_no_date(written: Path) -> None:
    with Image.open(written / "compare.png") as picture:
        assert picture.width == 1560
        assert not [key for key in picture.info if re.search("date|time", str(key), re.IGNORECASE)]
