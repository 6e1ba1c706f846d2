"""What `compare` weighs, counts, measures and writes."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_server.cli import main
from model_server.comparison import options
from model_server.comparison.answering import Predicted
from model_server.comparison.arms import NAMES, Where
from model_server.comparison.compare import _OWN, _PICTURES, _WEB, Plan, compare
from model_server.comparison.installed import packages
from model_server.comparison.machine import Machine, resident_mb
from model_server.comparison.parity import chosen_backends
from model_server.comparison.photos import pictures
from model_server.comparison.report import markdown, text
from model_server.comparison.results import OWN, PICTURES, WEB, Comparison, Figures, Row, Section
from model_server.comparison.trial import Trial, figures
from model_server.comparison.weighing import File, Package, Weighed
from model_server.comparison.weights import parameters
from model_server.failures import Stopped
from tests.contract.test_bring_your_own import SCENES
from tests.graphs import Input, write_bundle
from tests.servers import ROOT


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four distributions: big needs small always, rare with an extra, and absent, which is not installed."""
    needs = ["thinlens-small", 'thinlens-rare; extra == "more"', "thinlens-absent", 'never; sys_platform == "abacus"']
    install(tmp_path, "thinlens-big", needs, 1000)
    for name, size in (("thinlens-small", 10), ("thinlens-rare", 100)):
        install(tmp_path, name, [], size)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def install(site: Path, name: str, needs: list[str], size: int) -> None:
    module = name.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (site / f"{module}.py").write_bytes(b"#" * size)
    (site / f"{module}.pyc").write_bytes(b"#" * 5000)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", "Provides-Extra: more"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)]) + "\n")
    (info / "RECORD").write_text(f"{module}.py,,\n{module}.pyc,,\n{module}_pruned.py,,\n")


def test_a_package_is_weighed_with_what_it_needs_and_without_bytecode(site: Path) -> None:
    found, _ = packages({"all": ["thinlens-big"]})
    assert found == {"all": (Package("thinlens-big", "1.0", 1000), Package("thinlens-small", "1.0", 10))}


def test_an_extra_brings_what_it_names(site: Path) -> None:
    found, _ = packages({"all": ["thinlens-big[more]"]})
    assert [one.name for one in found["all"]] == ["thinlens-big", "thinlens-rare", "thinlens-small"]


def test_a_package_is_in_the_first_group_that_needs_it(site: Path) -> None:
    found, _ = packages({"common": ["thinlens-small"], "own": ["thinlens-big"]})
    assert [one.name for one in found["own"]] == ["thinlens-big"]


def test_what_is_not_installed_is_named(site: Path) -> None:
    assert packages({"all": ["thinlens-big"]})[1] == ("thinlens-absent",)


def test_of_two_packages_the_installed_one_is_weighed(site: Path) -> None:
    found, missing = packages({"all": ["thinlens-absent|thinlens-small"]})
    assert ([one.name for one in found["all"]], missing) == (["thinlens-small"], ())


def test_what_is_weighed_is_what_the_requirements_name() -> None:
    files = [*ROOT.glob("requirements*.txt"), ROOT / "pyproject.toml"]
    named = set(re.findall(r"[a-z][a-z0-9-]+", " ".join(path.read_text() for path in files)))
    weighed = [
        re.split(r"[|\[]", one)[0] for one in (*_WEB, *_PICTURES, *(name for own in _OWN.values() for name in own))
    ]
    assert set(weighed) - {"ai-edge-litert"} <= named


def test_every_stored_float_of_an_onnx_file_is_counted_once(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.zeros((2, 3), np.float32), "weights")
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [0] * 4)
    inner = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.FLOAT, [5], [0.0] * 5))
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)])
    either = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([either], "g", [], [], initializer=[weights, shape])
    onnx.save(helper.make_model(graph), str(tmp_path / "model.onnx"))
    assert parameters("onnx", [File(str(tmp_path / "model.onnx"), "")]) == (6 + 2 * 5, "")


def test_a_file_that_cannot_be_counted_says_why(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    assert parameters("onnx", [File(str(path), "")]) == (
        None,
        "model.onnx: the ONNX file cannot be read (DecodeError)",
    )
    assert parameters("abacus", [File(str(path), "")]) == (None, "there is no counter for files of 'abacus'")


def test_the_memory_of_a_process_includes_its_children() -> None:
    alone = resident_mb(os.getpid())
    child = subprocess.Popen(["sleep", "60"])
    try:
        together, own = resident_mb(os.getpid()), resident_mb(child.pid)
    finally:
        child.kill()
        child.wait()
    assert alone is not None
    assert together is not None
    assert own is not None
    assert together > 5
    assert own < together


def test_the_memory_of_a_process_that_has_ended_is_unknown() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert resident_mb(child.pid) is None


def answer(infer_ms: float, stage: str = "infer") -> Predicted:
    return Predicted((), infer_ms + 1, {stage: infer_ms}, infer_ms / 2)


def test_figures_are_medians_over_processes_and_over_warm_predictions() -> None:
    warm = [(answer(1), answer(2)), (answer(30), answer(4)), (answer(5), answer(6))]
    trials = [
        Trial(load, answer(10 * load), each, 100 * load, None) for load, each in zip((1, 9, 2), warm, strict=True)
    ]
    assert figures(trials) == Figures(2, 20, 21, 4.5, 5.5, 2.25, 200, None)


def test_a_forwarded_picture_counts_until_the_server_has_answered() -> None:
    assert figures([Trial(1, answer(7, "forward"), (answer(8, "forward"),), 10, 50)]).infer_ms == 8


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), "yolo v8", Input(), resize="letterbox")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "wide.png").write_bytes(SCENES["wide"].encoded())
    return tuple(pictures(folder))


@pytest.fixture(scope="module")
def measured(bundle: Path, scene: tuple[Path, ...]) -> tuple[Comparison, bool]:
    """The backends of this environment, one round."""
    return compare([bundle], Plan(*chosen_backends("all"), scene, Where(), rounds=1, threads=1))


def test_a_backend_is_weighed_counted_and_timed(measured: tuple[Comparison, bool], bundle: Path) -> None:
    row = measured[0].sections[0].rows[0]
    assert (row.backend, row.result, row.notes) == ("onnx", "measured", ())
    assert row.model_mb == (bundle / "model.onnx").stat().st_size / 1e6
    assert row.parameters
    assert [one.name for one in row.packages][:1] == ["onnxruntime"]
    found = row.figures
    assert found is not None
    assert found.load_s > 0.05
    assert 0 < found.infer_ms < found.whole_ms
    assert found.peak_mb > 20


def test_every_backend_has_a_row_in_the_same_order(measured: tuple[Comparison, bool]) -> None:
    rows = measured[0].sections[0].rows
    assert tuple(row.backend for row in rows) == NAMES
    notes = {row.backend: " ".join(row.notes) for row in rows if row.figures is None}
    assert notes["torchscript"] == "not run: the bundle has no artifact for it (detector)"
    assert notes["triton-http"] == "not run: no model server: give --triton-http"
    assert measured[1]


def test_a_function_that_forwards_pictures_needs_nothing_to_read_them(measured: tuple[Comparison, bool]) -> None:
    rows = {row.backend: row for row in measured[0].sections[0].rows}
    assert rows["triton-encoded"].packages_mb(PICTURES) == 0
    assert rows["triton-http"].packages_mb(PICTURES) == rows["onnx"].packages_mb(PICTURES)
    assert rows["triton-http"].packages_mb(OWN) == 0


def test_a_backend_that_was_named_and_is_not_here_is_a_failure(bundle: Path, scene: tuple[Path, ...]) -> None:
    assert not compare([bundle], Plan(*chosen_backends("torchscript"), scene, Where(), rounds=1))[1]


def test_a_model_server_that_is_away_is_a_failure(bundle: Path, scene: tuple[Path, ...]) -> None:
    where = Where(urls={"triton-http": "http://127.0.0.1:9"})
    found, good = compare([bundle], Plan(("triton-http",), False, scene, where, rounds=1))
    assert not good
    assert found.sections[0].rows[0].result == "failed"


WEIGHED = Weighed("3.11.7", {WEB: (Package("web", "1", 8_000_000),), PICTURES: (), OWN: (Package("big", "2", 10**9),)})
FIGURES = Figures(0.5, 12, 15, 8, 11, 20, 150, 200)
COMPARISON = Comparison(
    Machine("Abacus", 1, 1.0, "Linux x86_64"),
    rounds=1,
    passes=2,
    pictures=("a.jpg", "b.jpg"),
    threads=0,
    notes=("seen from afar",),
    sections=(
        Section(
            "cats", (Row("onnx", False, "measured", "", 9.1, WEIGHED, "", FIGURES), Row("x", True, "failed", "a|b"))
        ),
    ),
)


def test_the_page_says_on_what_and_how_it_was_measured() -> None:
    assert markdown(COMPARISON).splitlines()[2] == (
        "Abacus, 1 core, 1 GB of memory, Linux x86_64. Medians of 1 fresh process a backend, each with 2 warm passes "
        "over 2 pictures: a.jpg, b.jpg; as many threads as cores. seen from afar."
    )


def test_the_page_has_a_row_for_each_backend_and_says_why_one_was_not_run() -> None:
    lines = markdown(COMPARISON).splitlines()
    assert "| onnx | 1008.0 | 1000.0 | 9.10 | - | 0.50 | 12.0 | 15.0 | 8.0 | 11.0 | 20.0 | 150.0 | 200.0 |" in lines
    assert "| x | - | - | - | - | - | - | - | - | - | - | - | - |" in lines
    assert "- x: failed: a\\|b" in lines
    assert "| onnx | 8.0 | 0.0 | 1000.0 | 1008.0 | 3.11.7 | big 2 (1000.0) |" in lines


def test_the_text_has_the_same_figures() -> None:
    (line,) = (line for line in text(COMPARISON).splitlines() if line.startswith("onnx") and "9.10" in line)
    assert " ".join(line.split()) == "onnx 1008.0 1000.0 9.10 - 0.50 12.0 15.0 8.0 11.0 20.0 150.0 200.0"


def plan(*given: str) -> Plan:
    commands = argparse.ArgumentParser().add_subparsers()
    return options.compare_plan(options.add_compare(commands).parse_args(given))


def test_a_server_s_process_is_that_of_all_its_protocols() -> None:
    found = plan("--server-pid", "triton=7", "--server-pid", "tfserving-grpc=8").pids
    assert found == {"triton-http": 7, "triton-grpc": 7, "triton-encoded": 7, "tfserving-grpc": 8}


@pytest.mark.parametrize("given", [["--rounds", "0"], ["--server-pid", "triton"], ["--python", "onnx"]])
def test_options_that_cannot_be_are_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plan(*given)
    assert f"{given[0]}: expected" in capsys.readouterr().err


def test_an_unknown_server_is_told() -> None:
    with pytest.raises(Stopped, match="unknown 'trito'"):
        plan("--server-pid", "trito=7")


def test_nothing_is_measured_where_it_could_not_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["compare", "--into", str(tmp_path)]) == 1
    assert "matplotlib, which is not installed: pip install" in capsys.readouterr().err
