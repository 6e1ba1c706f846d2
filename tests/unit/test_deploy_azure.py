"""Deploying to Azure, against an `az` that keeps a state and a service that answers by TLS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docker.deploy import azure
from docker.deploy.package import zipped
from tests.fake_clouds import Deployed, FakeCloud, on_path, trusted_service
from tests.servers import ROOT

SECRET = "open-sesame"
IMAGE = "ghcr.io/me/thinlens:1.0"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    with trusted_service(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def az(tmp_path: Path, service: Deployed, monkeypatch: pytest.MonkeyPatch) -> FakeCloud:
    return on_path("az", tmp_path, service, monkeypatch)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return staged(tmp_path / "stage")


def staged(folder: Path) -> Path:
    for name in ("host.json", "function_app.py", "main.py", "requirements.txt", "shared/settings.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def run(kind: str, *words: str, keys: str = SECRET) -> int:
    where = ("--name", "my-app", "--group", "my-group", "--region", "westeurope", "--ready-s", "0")
    return azure.main([kind, *where, *words], {"THINLENS_API_KEYS": keys, "PATH": os.environ["PATH"]})


def functionapp(package: Path, *words: str) -> int:
    return run("functionapp", "--package", str(package), *words)


def test_a_first_deployment_makes_what_is_missing(
    az: FakeCloud, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert functionapp(package) == 0
    made = [call.line.split(" --")[0] for call in az.called("create")]
    assert made == [
        "group create",
        *("storage account create", "identity create", "role assignment create"),
        *("functionapp create", "functionapp create"),
    ]
    assert capsys.readouterr().out.endswith("/my-app\n")


def test_a_second_deployment_makes_nothing(az: FakeCloud, package: Path) -> None:
    functionapp(package)
    az.forget()
    assert functionapp(package) == 0
    assert az.called("create") == []
    assert len(az.called("config-zip")) == 2


def test_flex_takes_the_package_to_a_second_app_first(az: FakeCloud, package: Path) -> None:
    functionapp(package)
    sent = [call.words[call.words.index("--name") + 1] for call in az.called("config-zip")]
    assert sent == ["my-app-staging", "my-app"]


def test_what_fails_on_the_second_app_never_reaches_the_first(az: FakeCloud, service: Deployed, package: Path) -> None:
    service.broken.add("my-app-staging")
    assert functionapp(package) == 1
    assert not az.called("config-zip.* --name my-app ")


def test_flex_gets_its_package_and_settings_back_where_the_smoke_test_fails(
    az: FakeCloud, service: Deployed, package: Path
) -> None:
    functionapp(package, "--setting", "THINLENS_LOG_LEVEL=info")
    service.broken.add("my-app")
    assert functionapp(package, "--setting", "THINLENS_LOG_LEVEL=debug", "--setting", "THINLENS_THREADS=2") == 1
    assert az.called("config-zip")[-1].files["previous.zip"] == "the previous package"
    settings = az.state["settings"][f"{service.address}/my-app"]
    assert settings["THINLENS_LOG_LEVEL"] == "info"
    assert "THINLENS_THREADS" not in settings


def test_without_a_way_back_nothing_is_changed(
    az: FakeCloud, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    functionapp(package)
    az.forget()
    az.fail("blob download", "AuthorizationPermissionMismatch")
    assert functionapp(package) == 1
    assert not az.called("config-zip|appsettings set")
    assert "--no-way-back" in capsys.readouterr().err


def test_the_host_uses_its_storage_by_identity(az: FakeCloud, service: Deployed, package: Path) -> None:
    functionapp(package)
    settings = az.state["settings"][f"{service.address}/my-app"]
    assert settings["AzureWebJobsStorage__credential"] == "managedidentity"
    assert az.called("appsettings delete .*--setting-names AzureWebJobsStorage ")


def test_a_plan_with_slots_is_swapped_after_its_test(az: FakeCloud, service: Deployed, package: Path) -> None:
    assert functionapp(package, "--plan", "premium") == 0
    assert az.state["swaps"] == 1
    assert [path for path, _ in service.asked] == [
        f"/{place}/{route}" for place in ("my-app-staging", "my-app") for route in ("ready", "predict")
    ]


def test_a_failed_test_after_the_swap_swaps_again(az: FakeCloud, service: Deployed, package: Path) -> None:
    service.broken.add("my-app")
    assert functionapp(package, "--plan", "premium") == 1
    assert az.state["swaps"] == 2


def test_a_slot_that_is_not_ready_is_not_swapped(
    az: FakeCloud, service: Deployed, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.unready.add("my-app-staging")
    assert functionapp(package, "--plan", "premium") == 1
    assert "swaps" not in az.state
    assert "warming" in capsys.readouterr().err


def test_an_image_goes_to_the_slot(az: FakeCloud) -> None:
    assert run("container", "--image", IMAGE) == 0
    (call,) = az.called("config container set")
    assert f"--slot staging --image {IMAGE}" in call.line


def test_the_slot_takes_the_settings_of_production(az: FakeCloud, service: Deployed, package: Path) -> None:
    functionapp(package, "--plan", "premium", "--secret", "THINLENS_API_KEYS", "--setting", "THINLENS_THREADS=2")
    service.key = SECRET
    for _ in range(2):
        assert functionapp(package, "--plan", "premium", "--unset", "THINLENS_THREADS") == 0
        settings = az.state["settings"][f"{service.address}/my-app"]
        assert settings["THINLENS_API_KEYS"] == SECRET
        assert "THINLENS_THREADS" not in settings


@pytest.mark.parametrize("plan", ["flex", "premium"])
def test_the_settings_of_a_failed_deployment_are_gone_with_the_next(
    az: FakeCloud, service: Deployed, package: Path, plan: str
) -> None:
    functionapp(package, "--plan", plan)
    service.broken.add("my-app-staging")
    assert functionapp(package, "--plan", plan, "--setting", "THINLENS_THREADS=2") == 1
    assert "THINLENS_THREADS" in az.state["settings"][f"{service.address}/my-app-staging"]
    service.broken.clear()
    assert functionapp(package, "--plan", plan) == 0
    assert not [settings for settings in az.state["settings"].values() if "THINLENS_THREADS" in settings]


def test_keys_of_an_earlier_deployment_let_the_smoke_test_in(az: FakeCloud, service: Deployed, package: Path) -> None:
    level = ("--setting", "THINLENS_AZURE_AUTH_LEVEL=function")
    functionapp(package, "--secret", "THINLENS_API_KEYS", *level)
    service.key = SECRET
    service.asked.clear()
    assert functionapp(package) == 0
    assert {headers["x-functions-key"] for _, headers in service.asked} == {"function-key"}


def test_keys_of_an_earlier_deployment_are_hidden(
    az: FakeCloud, package: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    functionapp(package, "--plan", "premium", "--secret", "THINLENS_API_KEYS")
    az.fail("appsettings set", f"cannot set {SECRET}")
    assert functionapp(package, "--plan", "premium") == 1
    output = "".join(capfd.readouterr())
    assert "cannot set ***" in output
    assert SECRET not in output


def test_a_half_made_app_is_completed(az: FakeCloud, service: Deployed, package: Path) -> None:
    az.fail("appsettings set", "timeout")
    assert functionapp(package) == 1
    az.heal()
    assert functionapp(package) == 0
    for place in ("my-app-staging", "my-app"):
        settings = az.state["settings"][f"{service.address}/{place}"]
        assert settings["AzureWebJobsStorage__credential"] == "managedidentity"
        assert "AzureWebJobsStorage" not in settings


def test_a_first_package_that_never_arrived_needs_no_way_back(az: FakeCloud, package: Path) -> None:
    az.fail("config-zip .*--name my-app ", "timeout")
    assert functionapp(package) == 1
    az.heal()
    assert functionapp(package) == 0
    assert not az.called("blob download")


def test_an_app_that_somebody_else_made_keeps_its_storage(az: FakeCloud, service: Deployed, package: Path) -> None:
    functionapp(package, "--no-staging")
    theirs = {"AzureWebJobsStorage": "a key of theirs"}
    az.write(az.state | {"settings": {f"{service.address}/my-app": theirs}, "identity": "/id/theirs"})
    assert functionapp(package) == 0
    assert az.state["settings"][f"{service.address}/my-app"]["AzureWebJobsStorage"] == "a key of theirs"


@pytest.mark.parametrize("plan", ["consumption", "premium"])
def test_a_package_that_is_complete_is_not_built_again(az: FakeCloud, package: Path, plan: str) -> None:
    add_compiled(package)
    assert functionapp(package, "--plan", plan) == 0
    assert az.called("config-zip .*--build-remote false")
    assert not az.called("--build-remote true")


def test_a_complete_package_for_another_python_is_refused(
    az: FakeCloud, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_compiled(package)
    assert functionapp(package, "--plan", "premium", "--python", "3.12") == 1
    assert "is for Python 3.11, found --python 3.12" in capsys.readouterr().err
    assert az.calls == []


def add_compiled(package: Path) -> None:
    module = package / ".python_packages/lib/site-packages/numpy/core.cpython-311-x86_64-linux-gnu.so"
    module.parent.mkdir(parents=True)
    module.touch()


@pytest.mark.parametrize("plain", [True, False], ids=["folder", "zip"])
def test_a_backend_that_the_bundle_has_no_weights_for_is_refused(
    package: Path, capsys: pytest.CaptureFixture[str], plain: bool
) -> None:
    bundle = package / "model_server/models/mine"
    bundle.mkdir(parents=True)
    artifacts = {"onnx": {"file": "model.onnx"}, "litert": {"file": "model.tflite"}}
    (bundle / "model.json").write_text(json.dumps({"networks": {"detector": {"artifacts": artifacts}}}))
    (bundle / "model.onnx").touch()
    path = package if plain else zipped(package, package.with_suffix(".zip"))
    assert functionapp(path, "--backend", "litert", "--dry-run") == 1
    assert "no weights for --backend litert" in capsys.readouterr().err
    assert functionapp(path, "--backend", "onnx", "--dry-run") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_rolls_back(az: FakeCloud, service: Deployed, package: Path, number: signal.Signals) -> None:
    service.unready.add("my-app")
    words = ["--name", "my-app", "--group", "my-group", "--region", "westeurope", "--package", str(package)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    with subprocess.Popen(
        [sys.executable, "-m", "docker.deploy.azure", "functionapp", *words, "--plan", "premium"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as deployment:  # fmt: skip
        signal.signal(signal.SIGINT, before)
        until(lambda: any(path == "/my-app/ready" for path, _ in service.asked))
        assert az.state["swaps"] == 1
        deployment.send_signal(number)
        assert deployment.wait(20) == 130
    assert az.state["swaps"] == 2


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_premium_plan_has_twenty_machines_at_most(az: FakeCloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("container", "--image", IMAGE) == 0
    assert az.called("plan create .*--max-burst 20 ")
    assert run("container", "--image", IMAGE, "--max-instances", "21") == 1
    assert "has 20 at most" in capsys.readouterr().err


def test_azures_own_keys_let_the_smoke_test_in(az: FakeCloud, service: Deployed, package: Path) -> None:
    functionapp(package, "--setting", "THINLENS_AZURE_AUTH_LEVEL=function")
    assert {headers["x-functions-key"] for _, headers in service.asked} == {"function-key"}


def test_secrets_stand_in_no_argument_and_in_no_output(
    az: FakeCloud, package: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in ([], ["--plan", "premium"]):
        functionapp(package, "--secret", "THINLENS_API_KEYS", *kind)
    for _ in range(2):
        run("containerapp", "--image", IMAGE, "--secret", "THINLENS_API_KEYS")
    assert any(SECRET in text for call in az.calls for text in call.files.values())
    assert not [call.line for call in az.calls if SECRET in call.line]
    assert SECRET not in "".join(capfd.readouterr())


def test_a_secret_that_az_repeats_is_hidden(az: FakeCloud, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    az.fail("appsettings set", f"cannot set {SECRET}")
    assert functionapp(package, "--secret", "THINLENS_API_KEYS") == 1
    assert "cannot set ***" in capsys.readouterr().err


def test_the_services_own_keys_let_the_smoke_test_in(az: FakeCloud, service: Deployed, package: Path) -> None:
    functionapp(package, "--secret", "THINLENS_API_KEYS")
    assert {headers["x-api-key"] for _, headers in service.asked} == {SECRET}


def test_a_container_app_gives_the_traffic_to_a_revision_that_was_tested(az: FakeCloud, service: Deployed) -> None:
    run("containerapp", "--image", IMAGE)
    assert run("containerapp", "--image", f"{IMAGE}.1") == 0
    assert [path for path, _ in service.asked if path.endswith("predict")] == [
        *("/my-app/predict", "/my-app--2/predict", "/my-app/predict")
    ]
    assert weights(az) == {"my-app--1": 0, "my-app--2": 100}
    assert az.called("revision deactivate .*--revision my-app--1")


@pytest.mark.parametrize("broken", ["my-app--2", "my-app"])
def test_a_container_app_keeps_its_traffic_where_the_smoke_test_fails(
    az: FakeCloud, service: Deployed, broken: str
) -> None:
    run("containerapp", "--image", IMAGE)
    service.broken.add(broken)
    assert run("containerapp", "--image", f"{IMAGE}.1") == 1
    assert weights(az).get("my-app--1") == 100
    assert az.called("revision deactivate .*--revision my-app--2")


def test_a_container_app_that_is_as_it_should_be_is_left_alone(az: FakeCloud) -> None:
    run("containerapp", "--image", IMAGE)
    az.forget()
    assert run("containerapp", "--image", IMAGE) == 0
    assert not az.called("create|deactivate")


def test_a_failed_container_app_may_be_deployed_again(az: FakeCloud, service: Deployed) -> None:
    run("containerapp", "--image", IMAGE)
    service.broken.add("my-app--2")
    assert run("containerapp", "--image", f"{IMAGE}.1") == 1
    assert az.state["asleep"] == ["my-app--2"]
    service.broken.clear()
    assert run("containerapp", "--image", f"{IMAGE}.1") == 0
    assert weights(az) == {"my-app--1": 0, "my-app--2": 100}
    assert az.state["asleep"] == ["my-app--1"]


def test_a_container_apps_earlier_keys_let_the_smoke_test_in(az: FakeCloud, service: Deployed) -> None:
    run("containerapp", "--image", IMAGE, "--secret", "THINLENS_API_KEYS")
    service.key = SECRET
    assert run("containerapp", "--image", f"{IMAGE}.1") == 0


def test_keys_that_cannot_be_read_stop_it_before_anything_is_changed(
    az: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    run("containerapp", "--image", IMAGE, "--secret", "THINLENS_API_KEYS")
    az.forget()
    az.fail("secret show", "AuthorizationFailed")
    assert run("containerapp", "--image", f"{IMAGE}.1") == 1
    assert not az.called("update|set|create")
    assert "give --secret THINLENS_API_KEYS" in capsys.readouterr().err


@pytest.mark.parametrize("tag", [IMAGE, f"{IMAGE}.1"], ids=["same revision", "new revision"])
def test_a_container_app_gets_its_secrets_back_where_the_smoke_test_fails(
    az: FakeCloud, service: Deployed, tag: str
) -> None:
    run("containerapp", "--image", IMAGE, "--secret", "THINLENS_API_KEYS")
    service.broken.add("my-app")
    assert run("containerapp", "--image", tag, "--secret", "THINLENS_API_KEYS", keys="another") == 1
    assert az.state["app-secrets"] == {"api-keys": SECRET}
    assert "revision restart" in az.calls[-1].line


def test_new_secrets_of_the_same_revision_are_read(az: FakeCloud) -> None:
    for keys in (SECRET, "another"):
        assert run("containerapp", "--image", IMAGE, "--secret", "THINLENS_API_KEYS", keys=keys) == 0
    assert az.state["app-secrets"] == {"api-keys": "another"}
    assert az.called("revision restart .*--revision my-app--1")


def test_a_gpu_comes_as_a_workload_profile_and_is_used(az: FakeCloud) -> None:
    assert run("containerapp", "--image", IMAGE, "--gpu", "t4") == 0
    assert az.called("workload-profile add .*Consumption-GPU-NC8as-T4")
    (call,) = az.called("containerapp create")
    assert "--workload-profile-name t4" in call.line
    assert "THINLENS_DEVICE=cuda" in call.words


def weights(az: FakeCloud) -> dict[str, int]:
    traffic = az.state["apps"]["my-app"]["properties"]["configuration"]["ingress"]["traffic"]
    return {one["revisionName"]: one["weight"] for one in traffic}


def test_a_rehearsal_runs_nothing_and_needs_no_tool(package: Path) -> None:
    words = ["functionapp", "--package", str(package), "--name", "my-app", "--group", "g", "--region", "westeurope"]
    done = subprocess.run(
        [sys.executable, "-m", "docker.deploy.azure", *words, "--secret", "THINLENS_API_KEYS", "--dry-run"],
        check=True, capture_output=True, text=True, cwd=ROOT, env={"PATH": "", "THINLENS_API_KEYS": SECRET},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert all(line.startswith(("az ", "# ")) for line in lines)
    assert any(line.startswith("az functionapp create ") for line in lines)
    assert '"THINLENS_API_KEYS": "***"' in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_a_rehearsal_of_a_later_deployment_makes_nothing(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert functionapp(package, "--plan", "premium", "--dry-run", "again") == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if " create " in line]
    assert [line for line in lines if " slot swap " in line]


def test_what_az_says_of_its_failure_is_shown(az: FakeCloud, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    az.fail("storage account create", "StorageAccountAlreadyTaken")
    assert functionapp(package) == 1
    assert "StorageAccountAlreadyTaken" in capsys.readouterr().err


def test_without_a_login_nothing_is_changed(az: FakeCloud, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    az.fail("account show", "Please run 'az login' to setup account.")
    assert functionapp(package) == 1
    assert len(az.calls) == 1
    assert "no login" in capsys.readouterr().err


def test_without_az_one_line_says_so(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert functionapp(package) == 1
    assert capsys.readouterr().err.startswith("azure: az: not found")


def test_a_region_without_flex_is_refused(az: FakeCloud, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert functionapp(package, "--region", "antarctica") == 1
    assert not az.called("create")
    assert "northeurope, westeurope" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--name", "my_app"], "--name"),
        (["--region", "West Europe"], "--region"),
        (["--memory", "1024"], "512, 2048 and 4096"),
        (["--memory", "512", "--backend", "tensorflow"], "needs 2048 MiB"),
        (["--plan", "premium", "--memory", "2048"], "has its own"),
        (["--plan", "premium", "--max-instances", "40"], "has 20 at most, found 40"),
        (["--plan", "consumption", "--max-instances", "5"], "has its own"),
        (["--backend", "triton"], "needs --backend-url"),
        (["--backend", "onnx", "--backend-url", "http://h:8000"], "is for a model server"),
        (["--backend", "triton", "--backend-url", "h:8000"], "http://HOST:PORT"),
        (["--setting", "THINLENS_LOG_LEVLE=debug"], "did you mean THINLENS_LOG_LEVEL?"),
        (["--setting", "THINLENS_LOG_LEVEL=loud"], "debug, info, warning, error"),
        (["--setting", f"THINLENS_API_KEYS={SECRET}"], "is a secret"),
        (["--setting", "THINLENS_BACKEND=onnx", "--backend", "litert"], "twice"),
        (["--secret", "THINLENS_BACKEND_TOKEN"], "in the environment"),
        (["--bundle", "no-such"], "model_server/models/no-such/model.json"),
        (["--min-instances", "9", "--max-instances", "3"], "MIN <= MAX"),
        (["--package", "/no/such"], "expected a staged folder"),
        (["--sample", "/no/such.jpg"], "no such file"),
    ],
)
def test_a_wrong_option_is_one_line_before_anything_is_run(
    az: FakeCloud, package: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert functionapp(package, *words) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert SECRET not in error
    assert az.calls == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--image", "Thinlens"], "--image"),
        (["--image", "ghcr.io/me/thinlens"], "--image"),
        (["--image", "ghcr.io/me/thinlens:latest"], "not moved"),
        (["--image", IMAGE, "--cpu", "3.1"], "by quarters"),
        (["--image", IMAGE, "--memory", "1Gi"], "2Gi a core"),
        (["--image", IMAGE, "--name", "my--app"], "--name"),
        (["--image", IMAGE, "--registry-login"], "REGISTRY_USERNAME"),
    ],
)
def test_a_wrong_option_of_a_container_app_is_one_line(
    az: FakeCloud, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert run("containerapp", *words) == 1
    assert expected in capsys.readouterr().err
    assert az.calls == []


def test_an_unknown_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("functionapp", "--backend", "caffe")
    assert capsys.readouterr().err.count("\n") == 1
