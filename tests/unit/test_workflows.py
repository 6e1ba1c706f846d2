"""What GitHub runs: pinned, with few rights, and nothing of consequence that is not a target or a script of ours."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from docker import locks
from tests.servers import ROOT

_FOLDER = ROOT / ".github" / "workflows"
_NAMES = sorted(path.name for path in _FOLDER.glob("*"))
_BIN = Path(sys.executable).parent
_RUNNERS = {"ubuntu-24.04", "ubuntu-24.04-arm", "${{ matrix.runner }}"}
_PINNED = re.compile(r"(?P<action>[\w.-]+/[\w./-]+)@(?P<commit>[0-9a-f]{40}) # v\d+\.\d+\.\d+")
_OWN = re.compile(r"\./(\.github/workflows/[\w-]+\.yml)")
_SECRET = re.compile(r"secrets\.(\w+)")

every_workflow = pytest.mark.parametrize("name", _NAMES)


def text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@cache
def workflow(name: str) -> dict[str, Any]:
    """With every scalar as text, so that `on` is no boolean and 3.10 no number."""
    found: dict[str, Any] = yaml.load(text(name), Loader=yaml.BaseLoader)
    return found


def jobs(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(name)["jobs"]
    return found


def steps(name: str) -> Iterator[dict[str, Any]]:
    for job in jobs(name).values():
        yield from job.get("steps", [])


def scripts(name: str) -> list[str]:
    return [step["run"] for step in steps(name) if "run" in step]


def uses(name: str) -> list[str]:
    """What stands behind every `uses:`, its comment with it."""
    return re.findall(r"^\s*(?:- )?uses: (.+)$", text(name), re.MULTILINE)


def targets_called(name: str) -> set[str]:
    """Of make; those that a matrix names, too."""
    called = set(re.findall(r"\bmake ([a-z][\w-]*)", "\n".join(scripts(name))))
    for job in jobs(name).values():
        matrix = job.get("strategy", {}).get("matrix", {})
        rows = matrix.get("include", [])
        called |= set(matrix.get("target", []))
        called |= {row["target"] for row in rows if isinstance(row, dict) and "target" in row}
    return called


def test_there_are_the_workflows_that_we_know() -> None:
    assert _NAMES == ["ci.yml", "deploy-azure.yml", "deploy-google.yml", "images.yml", "model.yml", "release.yml"]


@every_workflow
def test_every_action_is_pinned_to_a_commit_and_says_its_version(name: str) -> None:
    foreign = [used for used in uses(name) if not used.startswith("./")]
    assert [used for used in foreign if not _PINNED.fullmatch(used)] == []


@every_workflow
def test_every_workflow_of_ours_that_is_called_exists(name: str) -> None:
    called = [_OWN.fullmatch(used) for used in uses(name) if used.startswith("./")]
    assert [used for used in called if used is None or not (ROOT / used[1]).is_file()] == []


def test_an_action_is_of_one_version_everywhere() -> None:
    pins = {used.split("@")[0]: set[str]() for name in _NAMES for used in uses(name) if "@" in used}
    for name in _NAMES:
        for used in uses(name):
            if "@" in used:
                pins[used.split("@")[0]].add(used.split("@")[1])
    assert {action: found for action, found in pins.items() if len(found) > 1} == {}


@every_workflow
def test_a_workflow_has_no_rights_and_each_job_names_its_own(name: str) -> None:
    assert workflow(name)["permissions"] == {}
    assert [job for job, found in jobs(name).items() if not isinstance(found.get("permissions"), dict)] == []


@every_workflow
def test_only_publishing_writes_and_only_who_signs_in_has_a_token(name: str) -> None:
    writing = {
        f"{job}: {right}"
        for job, found in jobs(name).items()
        for right, value in found["permissions"].items()
        if value == "write"
    }
    allowed = {
        "ci.yml": set[str](),
        "deploy-azure.yml": {"deploy: id-token"},
        "deploy-google.yml": {"deploy: id-token"},
        "images.yml": {
            "build: security-events",
            *(f"publish: {right}" for right in ("packages", "id-token", "attestations")),
        },
        "model.yml": {"image: packages"},
        "release.yml": {
            *(f"images: {right}" for right in ("security-events", "packages", "id-token", "attestations")),
            *(f"publish: {right}" for right in ("contents", "id-token", "attestations")),
        },
    }
    assert writing == allowed[name]


@every_workflow
def test_every_job_ends_in_time_on_a_runner_that_is_named(name: str) -> None:
    own = {job: found for job, found in jobs(name).items() if "uses" not in found}
    assert [job for job, found in own.items() if not 0 < int(found.get("timeout-minutes", 0)) <= 120] == []
    assert {found["runs-on"] for found in own.values()} <= _RUNNERS


@every_workflow
def test_two_runs_do_not_meet(name: str) -> None:
    assert workflow(name)["concurrency"]["group"].startswith(f"{Path(name).stem}-${{{{ ")


@every_workflow
def test_no_secret_is_used_but_the_services_own_keys_and_only_to_deploy(name: str) -> None:
    told = text(name)
    assert set(_SECRET.findall(told)) <= {"GITHUB_TOKEN", "THINLENS_API_KEYS"}
    handed = [step["id"] for step in steps(name) if "secrets.THINLENS_API_KEYS" in str(step)]
    assert handed == (["deploy"] if name.startswith("deploy-") else [])
    assert told.count("secrets.") == len(handed)
    assert "secrets: inherit" not in told


def test_only_the_deploying_job_of_an_environment_sees_the_keys() -> None:
    for cloud in ("azure", "google"):
        assert workflow(f"deploy-{cloud}.yml")["on"]["workflow_call"]["secrets"] == {
            "THINLENS_API_KEYS": {"required": "false"}
        }
        seeing = {job for job, found in jobs(f"deploy-{cloud}.yml").items() if "secrets." in str(found)}
        assert seeing == {"deploy"}
        assert jobs(f"deploy-{cloud}.yml")["deploy"]["environment"]["name"] == "${{ inputs.environment }}"


@every_workflow
def test_nobody_elses_text_is_run(name: str) -> None:
    assert [script for script in scripts(name) if "${{" in script] == []


@every_workflow
def test_the_checkout_leaves_no_credentials_behind(name: str) -> None:
    found = [step for step in steps(name) if step.get("uses", "").startswith("actions/checkout@")]
    assert found
    assert [step for step in found if step["with"]["persist-credentials"] != "false"] == []


@every_workflow
def test_a_failure_within_a_pipe_is_one(name: str) -> None:
    assert workflow(name)["defaults"]["run"]["shell"] == "bash", "GitHub adds pipefail only where bash is asked for"


@every_workflow
def test_every_target_of_make_exists(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets_called(name) - set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE)) == set()


@every_workflow
def test_every_script_exists_and_can_be_run(name: str) -> None:
    named = re.findall(r"(?:^|\s)(\.github/scripts/[\w.-]+)", "\n".join(scripts(name)))
    missing = [path for path in named if not (ROOT / path).is_file()]
    assert missing == []
    assert [path for path in named if path.endswith(".sh") and not os.access(ROOT / path, os.X_OK)] == []


@every_workflow
def test_every_module_that_is_run_exists(name: str) -> None:
    named = re.findall(r"python3? -m ([\w.]+)", "\n".join(scripts(name)))
    assert [module for module in named if importlib.util.find_spec(module) is None] == []


@every_workflow
def test_every_script_in_a_workflow_passes_shellcheck(name: str, tmp_path: Path) -> None:
    paths = []
    for number, script in enumerate(scripts(name)):
        paths.append(tmp_path / f"{number}.sh")
        paths[-1].write_text(f"#!/bin/bash\nset -eo pipefail\n{script}\n", encoding="utf-8")
    done = subprocess.run([str(_BIN / "shellcheck"), *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_ci_runs_on_every_python_that_we_support() -> None:
    pythons = jobs("ci.yml")["test"]["strategy"]["matrix"]["python"]
    assert tuple(pythons) == locks.PYTHONS
    assert f'requires-python = ">={pythons[0]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_azures_worker_is_tested_on_the_python_that_it_needs() -> None:
    rows = jobs("ci.yml")["beside"]["strategy"]["matrix"]["include"]
    assert {row["python"] for row in rows if row["target"] == "test-azure"} == {"3.13"}


def test_images_are_published_once_everything_else_of_the_release_is_there() -> None:
    assert set(jobs("release.yml")["images"]["needs"]) == {"tests", "packages"}


def test_only_the_schedule_and_who_asks_for_it_start_what_takes_longest() -> None:
    on = workflow("ci.yml")["on"]
    assert jobs("ci.yml")["weekly"]["if"] == "github.event_name == 'schedule' || inputs.weekly"
    assert on["workflow_call"]["inputs"]["weekly"]["default"] == "false"
    assert "with" not in jobs("release.yml")["tests"]


def test_what_is_published_is_the_archive_that_was_asked_and_scanned() -> None:
    build = [str(step) for step in jobs("images.yml")["build"]["steps"]]
    order = ["type=oci,dest=${{ matrix.file }}.tar", "load.sh", "images-test", "scan-action", "upload-artifact"]
    places = [next(at for at, step in enumerate(build) if word in step) for word in order]
    assert places == sorted(places)
    assert not [step for step in jobs("images.yml")["publish"]["steps"] if "build-push-action" in step.get("uses", "")]
    assert set(jobs("images.yml")["publish"]["needs"]) == {"plan", "build", "beside"}


def test_every_test_of_the_images_is_run_by_one_job() -> None:
    listed = [path for job in ("build", "beside") for path in jobs("images.yml")[job]["env"]["TESTS"].split()]
    found = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.images\n" in path.read_text("utf-8")]
    assert sorted(listed) == sorted(path.relative_to(ROOT).as_posix() for path in found)


def test_both_clouds_are_deployed_to_with_what_their_commands_take() -> None:
    for cloud, kinds in (("azure", "functionapp,container,containerapp"), ("google", "function,run,vertex")):
        inputs = workflow(f"deploy-{cloud}.yml")["on"]["workflow_dispatch"]["inputs"]
        assert ",".join(inputs["kind"]["options"]) == kinds
        module = [sys.executable, "-m", f"docker.deploy.{cloud}", "--help"]
        told = subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert [kind for kind in kinds.split(",") if not re.search(rf"^    {kind}\b", told, re.MULTILINE)] == []


def test_what_is_asked_by_hand_can_be_called_by_a_workflow_too() -> None:
    for cloud in ("azure", "google"):
        on = workflow(f"deploy-{cloud}.yml")["on"]
        assert set(on["workflow_dispatch"]["inputs"]) == set(on["workflow_call"]["inputs"])


def test_the_folders_that_dependabot_looks_at_exist() -> None:
    found = yaml.load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    folders = [folder for each in found["updates"] for folder in each.get("directories", [each.get("directory")])]
    assert [folder for folder in folders if not (ROOT / folder.strip("/")).is_dir()] == []


@pytest.mark.parametrize("folder", ["lint", "core-tools"])
def test_packages_for_node_are_locked_by_their_hashes_and_to_no_place(folder: str) -> None:
    lock = (ROOT / ".github" / folder / "package-lock.json").read_text(encoding="utf-8")
    assert lock.count('"integrity": "sha512-') == lock.count('    "node_modules/')
    assert '"resolved"' not in lock
