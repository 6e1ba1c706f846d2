"""The staged folder: everything that a cloud needs, nothing else, the same every time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from model_server.catalog import SHIPPED
from model_server.cli import main
from model_server.failures import Stopped
from model_server.landing import STAGE_MARK
from model_server.manifests import problems
from model_server.staging.files import Cloud
from model_server.staging.stage import ROOT, TIME, Additions, stage
from shared.artifacts import CACHE, verified
from shared.errors import ConfigurationError
from shared.manifest import read_bundle
from tests.clients import bundle

BUNDLE = "coco-ssd-mobilenet-v2"
OPTIMISED = Additions(optimise=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with what must and what must not be staged."""
    root = tmp_path / "project"
    for file in (
        "function_app/function_app.py",
        "function_app/.funcignore",
        "function_app/.gcloudignore",
        "function_app/.env",
        "function_app/local.settings.json",
        "function_app/__pycache__/function_app.pyc",
        "shared/__init__.py",
        "shared/web/static/app.js",
        "shared/tests/test_x.py",
        "shared/.cache/x",
        "gunicorn.conf.py",
        "requirements.txt",
        "requirements-torch.txt",
        "requirements-tf.txt",
    ):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{file}\n")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def _all(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _copied(into: Path) -> Path:
    """The bundled model in a folder of its own."""
    return Path(shutil.copytree(SHIPPED / BUNDLE, into / "own" / BUNDLE, ignore=shutil.ignore_patterns(".*")))


def _files(folder: Path) -> set[str]:
    """But for what was found out about them."""
    return {path.relative_to(folder).as_posix() for path in _all(folder) if path.parent.name != CACHE}


def test_the_doors_lie_in_the_root_and_the_rest_where_it_was(project: Path, out: Path) -> None:
    stage(out, [BUNDLE], SHIPPED, root=project)
    assert _files(out) == {
        "function_app.py",
        ".funcignore",
        ".gcloudignore",
        "shared/__init__.py",
        "shared/web/static/app.js",
        f"model_server/models/{BUNDLE}/model.json",
        f"model_server/models/{BUNDLE}/model.onnx",
        f"model_server/models/{BUNDLE}/LICENSE",
        "gunicorn.conf.py",
        "requirements.txt",
        STAGE_MARK,
    }


def test_two_stagings_of_the_same_sources_are_alike_to_the_second(project: Path, tmp_path: Path) -> None:
    def staged(name: str) -> list[tuple[str, int, int, bytes]]:
        stage(tmp_path / name, [BUNDLE], SHIPPED, root=project)
        paths = sorted((tmp_path / name).rglob("*"))
        return [
            (path.name, path.stat().st_mode, int(path.stat().st_mtime), path.read_bytes() if path.is_file() else b"")
            for path in paths
        ]

    first = staged("one")
    for path in project.rglob("*.py"):
        os.utime(path)
        path.chmod(0o600)
    assert staged("two") == first


def test_a_folder_of_somebody_elses_is_left_alone(project: Path, out: Path) -> None:
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(Stopped, match="was not made by this command"):
        stage(out, [BUNDLE], SHIPPED, root=project)
    assert _files(out) == {"precious"}


def test_a_staged_folder_is_laid_out_anew(project: Path, out: Path) -> None:
    stage(out, [BUNDLE], SHIPPED, root=project)
    (project / "shared" / "web" / "static" / "app.js").unlink()
    stage(out, [BUNDLE], SHIPPED, root=project)
    assert "shared/web/static/app.js" not in _files(out)


@pytest.mark.parametrize("place", [".", "..", "shared/out", "function_app"])
def test_the_sources_are_never_staged_over(place: str, project: Path) -> None:
    with pytest.raises(Stopped, match="is where the sources are"):
        stage(project / place, [BUNDLE], SHIPPED, root=project)


def test_a_link_is_staged_as_what_it_means(project: Path, out: Path) -> None:
    (project / "shared" / "linked.py").symlink_to(project / "shared" / "__init__.py")
    stage(out, [BUNDLE], SHIPPED, root=project)
    assert not (out / "shared" / "linked.py").is_symlink()
    assert (out / "shared" / "linked.py").read_text() == "shared/__init__.py\n"


def test_a_link_to_nothing_is_said_to_be_one(project: Path, out: Path) -> None:
    (project / "shared" / "linked.py").symlink_to(project / "none")
    with pytest.raises(Stopped, match="is a link to nothing"):
        stage(out, [BUNDLE], SHIPPED, root=project)


def test_included_requirements_are_written_into_the_one_file(project: Path, out: Path) -> None:
    (project / "requirements.txt").write_text("numpy\n")
    (project / "requirements-torch.txt").write_text("-r requirements.txt\ntorch\n")
    stage(out, [BUNDLE], SHIPPED, project / "requirements-torch.txt", root=project)
    assert (out / "requirements.txt").read_text() == "numpy\ntorch\n"


def test_requirements_that_one_file_cannot_hold_are_refused(project: Path, out: Path) -> None:
    (project / "requirements.txt").write_text("-c constraints.txt\n")
    with pytest.raises(Stopped, match=r"'-c constraints\.txt' cannot be staged"):
        stage(out, [BUNDLE], SHIPPED, root=project)


def test_a_bundle_that_is_not_whole_is_not_staged(project: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"holds no model\.json"):
        stage(out, ["none"], tmp_path, root=project)
    assert not out.exists()


def test_weights_that_the_backend_does_not_take_need_not_be_there(project: Path, out: Path, tmp_path: Path) -> None:
    folder = _copied(tmp_path)
    (folder / "model.ts").unlink()
    stage(out, [str(folder)], tmp_path, root=project)
    assert f"model_server/models/{BUNDLE}/model.onnx" in _files(out)


def test_where_a_model_server_has_the_weights_they_need_not_be_there(project: Path, out: Path, tmp_path: Path) -> None:
    folder = _copied(tmp_path)
    for weights in ("model.ts", "model.onnx", "saved_model/saved_model.pb"):
        (folder / weights).unlink()
    stage(out, [str(folder)], tmp_path, root=project, backend="triton")
    assert f"model_server/models/{BUNDLE}/model.json" in _files(out)


def test_weights_that_have_changed_are_not_staged(project: Path, out: Path, tmp_path: Path) -> None:
    folder = _copied(tmp_path)
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(Stopped, match=r"model\.onnx: expected sha256"):
        stage(out, [str(folder)], tmp_path, root=project)


@pytest.mark.parametrize(
    ("cloud", "door"),
    [
        ("azure", {"function_app.py", ".funcignore"}),
        ("google", {"main.py", ".gcloudignore", "gunicorn.conf.py"}),
        ("vertex", {"gunicorn.conf.py"}),
    ],
)
def test_one_cloud_is_given_its_own_door(cloud: Cloud, door: set[str], project: Path, out: Path) -> None:
    (project / "function_app" / "main.py").write_text("")
    stage(out, [BUNDLE], SHIPPED, root=project, cloud=cloud)
    assert {path.name for path in out.iterdir() if path.is_file()} == door | {"requirements.txt", STAGE_MARK}


def test_an_optimised_bundle_is_laid_out_in_the_place_of_the_other(project: Path, out: Path) -> None:
    said = stage(out, [BUNDLE], SHIPPED, root=project, additions=OPTIMISED)
    folder = out / "model_server" / "models" / BUNDLE
    assert _files(folder) == {"model.json", "LICENSE", "model.optimised.onnx"}
    assert problems(folder, backend="onnx") == []
    assert "optimised by onnxruntime" in said


def test_optimised_bundles_are_alike_too(project: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        stage(tmp_path / name, [BUNDLE], SHIPPED, root=project, additions=OPTIMISED)
    one, two = ({path.name: path.read_bytes() for path in _all(tmp_path / name)} for name in ("one", "two"))
    assert one == two


def test_what_cannot_be_optimised_or_profiled_is_said_and_staged(project: Path, out: Path) -> None:
    both = Additions(optimise=True, profile=True)
    said = stage(out, [BUNDLE], SHIPPED, root=project, backend="triton", additions=both)
    assert "not optimised: triton" in said
    assert "not profiled: triton runs on a model server" in said


def test_the_commit_is_noted_beside_the_code(project: Path, out: Path) -> None:
    stage(out, [BUNDLE], SHIPPED, root=project, additions=Additions(git_sha="0123abc"))
    assert (out / "shared" / "build.json").read_text() == '{"git_sha":"0123abc"}\n'


def test_an_earlier_commit_is_not_staged(project: Path, out: Path) -> None:
    (project / "shared" / "build.json").write_text('{"git_sha": "0123abc"}')
    stage(out, [BUNDLE], SHIPPED, root=project)
    assert "shared/build.json" not in _files(out)


@pytest.mark.parametrize("sha", ["012345", "0" * 41, "main", "0123abc\n", "0123 abc"])
def test_what_is_no_commit_is_refused(sha: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["stage", str(out), "--bundle", BUNDLE, "--git-sha", sha])
    assert "--git-sha: expected 7 to 40 hex digits" in capsys.readouterr().err


def test_an_empty_commit_is_one_that_is_not_known(out: Path) -> None:
    assert main(["stage", str(out), "--bundle", BUNDLE, "--models", str(SHIPPED), "--git-sha", ""]) == 0
    assert "shared/build.json" not in _files(out)


def test_the_command_stages_this_project(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stage", str(out), "--bundle", BUNDLE, "--models", str(SHIPPED)]) == 0
    staged = _files(out)
    assert {"function_app.py", "main.py", "host.json", "shared/service.py", "requirements.txt"} <= staged
    assert (out / "requirements.txt").read_text() == (ROOT / "requirements.txt").read_text()
    assert not [file for file in staged if "__pycache__" in file or file.startswith("tests/")]


@pytest.mark.parametrize(
    ("backend", "weights"),
    [("onnx", {"model.onnx"}), ("tensorflow", {"saved_model/saved_model.pb"}), ("triton", set())],
)
def test_only_the_weights_that_are_run_are_staged(backend: str, weights: set[str], project: Path, out: Path) -> None:
    stage(out, [BUNDLE], SHIPPED, root=project, backend=backend)
    folder = out / "model_server" / "models" / BUNDLE
    assert _files(folder) == {"model.json", "LICENSE", *weights}


def test_a_bundle_without_weights_for_the_backend_is_not_staged(project: Path, out: Path, tmp_path: Path) -> None:
    bundle(tmp_path / "models")
    with pytest.raises(Stopped, match="names no weights for 'torchscript'"):
        stage(out, ["own"], tmp_path / "models", root=project, backend="torchscript")


def test_no_start_reads_weights_again_that_were_right_when_they_were_staged(project: Path, out: Path) -> None:
    stage(out, [str(SHIPPED / BUNDLE)], SHIPPED, root=project)
    network = read_bundle(out / "model_server" / "models" / BUNDLE).network("detector")
    path = network.folder / "model.onnx"
    path.write_bytes(bytes(path.stat().st_size))  # who reads them finds them wrong
    os.utime(path, (TIME, TIME))
    verified(network, "onnx")
    os.utime(path, (TIME + 1, TIME + 1))
    with pytest.raises(ConfigurationError, match="sha256"):
        verified(network, "onnx")


def test_two_bundles_of_one_name_are_not_mixed(project: Path, out: Path, tmp_path: Path) -> None:
    for place in ("one", "two"):
        bundle(tmp_path / place)
    with pytest.raises(Stopped, match="two bundles have one name"):
        stage(out, [str(tmp_path / "one" / "own"), str(tmp_path / "two" / "own")], tmp_path, root=project)


def test_two_models_of_one_name_are_not_staged(project: Path, out: Path, tmp_path: Path) -> None:
    models = bundle(tmp_path / "models").parent
    shutil.copytree(models / "own", models / "copy")
    with pytest.raises(Stopped, match="own, own: two bundles have one name"):
        stage(out, ["own", "copy"], models, root=project)


def test_a_bundle_may_be_a_folder_elsewhere(project: Path, out: Path, tmp_path: Path) -> None:
    stage(out, [str(SHIPPED / BUNDLE)], tmp_path, root=project)
    assert f"model_server/models/{BUNDLE}/model.onnx" in _files(out)


@pytest.mark.parametrize(
    ("backend", "packages"),
    [
        ("onnx", ["numpy", "onnxruntime>=1"]),
        ("tensorflow", ["numpy", "tensorflow-cpu"]),
        ("triton", ["numpy"]),
        ("tfserving", ["numpy"]),
    ],
)
def test_the_packages_are_those_of_the_backend(backend: str, packages: list[str], project: Path, out: Path) -> None:
    (project / "requirements.txt").write_text("numpy\nonnxruntime>=1\n")
    (project / "requirements-tf.txt").write_text("-r requirements.txt\ntensorflow-cpu\n")
    said = stage(out, [BUNDLE], SHIPPED, root=project, backend=backend)
    assert (out / "requirements.txt").read_text().split() == packages
    assert f"set THINLENS_BACKEND={backend}" in said
