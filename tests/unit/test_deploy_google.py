"""Deploying to Google, against a `gcloud` that keeps a state and a service that answers by TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from docker.deploy import google
from docker.deploy.declared import known
from docker.deploy.smoke import Smoke
from model_server.failures import Stopped
from shared.settings import own_fields
from tests.fake_clouds import Deployed, FakeCloud, on_path, trusted_service

SECRET = "open-sesame"
IMAGE = "europe-docker.pkg.dev/my-project/images/thinlens:1.0"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    with trusted_service(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def gcloud(tmp_path: Path, service: Deployed, monkeypatch: pytest.MonkeyPatch) -> FakeCloud:
    return on_path("gcloud", tmp_path, service, monkeypatch)


def run(kind: str, *words: str) -> int:
    where = ("--name", "my-app", "--region", "europe-west4", "--ready-s", "0")
    return google.main([kind, *where, *words], {"THINLENS_API_KEYS": SECRET, "THINLENS_BACKEND_TOKEN": SECRET})


def image(*words: str) -> int:
    return run("run", "--image", IMAGE, *words)


def percents(gcloud: FakeCloud) -> dict[str, int]:
    traffic = gcloud.state["services"]["my-app"]["status"]["traffic"]
    return {one["revisionName"]: one["percent"] for one in traffic}


def split(gcloud: FakeCloud) -> list[int]:
    return list(gcloud.state["endpoints"][0]["trafficSplit"].values())


def test_a_first_deployment_is_tested_where_it_answers(
    gcloud: FakeCloud, service: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("--public") == 0
    assert [path for path, _ in service.asked] == ["/my-app/ready", "/my-app/predict"]
    assert capsys.readouterr().out == f"https://{service.address}/my-app\n"


def test_a_first_deployment_does_not_ask_for_no_traffic(gcloud: FakeCloud) -> None:
    image("--public")
    assert not gcloud.called("--no-traffic")


def test_a_second_deployment_moves_the_traffic_after_its_test(gcloud: FakeCloud, service: Deployed) -> None:
    image("--public")
    assert image("--public") == 0
    assert [path for path, _ in service.asked if path.endswith("predict")] == [
        *("/my-app/predict", "/candidate/predict", "/my-app/predict")
    ]
    assert percents(gcloud) == {"my-app-2": 100}


@pytest.mark.parametrize("broken", ["candidate", "my-app"])
def test_the_traffic_stays_where_the_smoke_test_fails(gcloud: FakeCloud, service: Deployed, broken: str) -> None:
    image("--public")
    service.broken.add(broken)
    assert image("--public") == 1
    assert percents(gcloud) == {"my-app-1": 100}
    assert gcloud.called("--remove-tags candidate")


def test_a_function_is_deployed_from_its_staged_folder(gcloud: FakeCloud, tmp_path: Path) -> None:
    for name in ("main.py", "requirements.txt", "shared/settings.py"):
        (tmp_path / "stage" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stage" / name).touch()
    assert run("function", "--source", str(tmp_path / "stage"), "--public") == 0
    (call,) = gcloud.called("run deploy")
    assert "--function predict --base-image python311" in call.line


def test_settings_go_by_a_file(gcloud: FakeCloud) -> None:
    image("--public", "--setting", "THINLENS_URL_FETCH=a.example,b.example")
    (call,) = gcloud.called("run deploy")
    flags = json.loads(call.files["env-vars.json"])
    assert flags == {"--update-env-vars": {"THINLENS_URL_FETCH": "a.example,b.example"}}


def test_a_secret_is_kept_by_the_secret_manager(gcloud: FakeCloud) -> None:
    image("--public", "--secret", "THINLENS_API_KEYS")
    assert gcloud.state["secrets"] == {"my-app-api-keys": [SECRET]}
    assert gcloud.called("--update-secrets THINLENS_API_KEYS=my-app-api-keys:1 ")
    assert gcloud.called("add-iam-policy-binding my-app-api-keys --member serviceAccount:123-compute@")


def test_the_same_secret_makes_no_new_version(gcloud: FakeCloud) -> None:
    for _ in range(2):
        image("--public", "--secret", "THINLENS_API_KEYS")
    assert gcloud.state["secrets"] == {"my-app-api-keys": [SECRET]}


def test_secrets_stand_in_no_argument_and_in_no_output(gcloud: FakeCloud, capfd: pytest.CaptureFixture[str]) -> None:
    image("--secret", "THINLENS_API_KEYS")
    server = ("--backend", "triton", "--backend-url", "http://h:8000", "--secret", "THINLENS_BACKEND_TOKEN")
    run("vertex", "--image", IMAGE, *server)
    for words in (("run", "--image", IMAGE, "--secret", "THINLENS_API_KEYS"), ("vertex", "--image", IMAGE, *server)):
        run(*words, "--dry-run")
    assert any(SECRET in text for call in gcloud.calls for text in call.files.values())
    assert not [call.line for call in gcloud.calls if SECRET in call.line]
    assert SECRET not in "".join(capfd.readouterr())


def test_keys_of_an_earlier_deployment_let_the_smoke_test_in(gcloud: FakeCloud, service: Deployed) -> None:
    image("--public", "--secret", "THINLENS_API_KEYS")
    service.key = SECRET
    assert image("--public") == 0
    assert gcloud.called("versions access 1 --secret my-app-api-keys")


def test_keys_that_cannot_be_read_stop_it_before_anything_is_changed(
    gcloud: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    image("--public", "--secret", "THINLENS_API_KEYS")
    gcloud.forget()
    gcloud.fail("versions access", "PERMISSION_DENIED")
    assert image("--public") == 1
    assert not gcloud.called("run deploy|secrets (create|versions add)")
    assert "give --secret THINLENS_API_KEYS" in capsys.readouterr().err


def test_a_private_service_is_shown_who_asks(gcloud: FakeCloud, service: Deployed) -> None:
    image("--secret", "THINLENS_API_KEYS")
    _, headers = service.asked[-1]
    assert headers["x-serverless-authorization"] == "Bearer identity-token"
    assert headers["x-api-key"] == SECRET


def test_a_gpu_is_asked_for_and_used(gcloud: FakeCloud) -> None:
    assert image("--public", "--gpu") == 0
    (call,) = gcloud.called("run deploy")
    assert "--cpu 4 --memory 16384Mi" in call.line
    assert "--gpu 1 --gpu-type nvidia-l4 --no-cpu-throttling" in call.line
    assert '"THINLENS_DEVICE": "cuda"' in call.files["env-vars.json"]


def test_vertex_takes_readiness_for_health(gcloud: FakeCloud) -> None:
    assert run("vertex", "--image", IMAGE) == 0
    (call,) = gcloud.called("models upload")
    assert "--container-predict-route /predict --container-health-route /ready" in call.line


def test_vertex_replaces_the_old_model_after_its_test(gcloud: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch)
    for _ in range(2):
        assert run("vertex", "--image", IMAGE) == 0
    assert gcloud.state["endpoints"][0]["trafficSplit"] == {"1002": 100}
    assert gcloud.called("--model 7@2 ")
    assert len(gcloud.called("endpoints create")) == 1
    assert gcloud.called("undeploy-model 9 .*--deployed-model-id 1001")


def test_vertex_keeps_the_old_model_where_the_smoke_test_fails(
    gcloud: FakeCloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later(monkeypatch)
    run("vertex", "--image", IMAGE)
    gcloud.write(gcloud.state | {"replies": [{"error": {"code": "model_broken"}}]})
    assert run("vertex", "--image", IMAGE) == 1
    assert gcloud.state["endpoints"][0]["trafficSplit"] == {"1001": 100}
    assert "model_broken" in capsys.readouterr().err


def test_vertex_undeploys_what_never_became_ready(gcloud: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch)
    gcloud.fail(" deploy-model", "deadline exceeded")
    assert run("vertex", "--image", IMAGE) == 1
    assert gcloud.called("undeploy-model 9 .*--deployed-model-id 1001")


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes from one deployment to the next."""
    ticks = iter(range(1001, 2000))
    monkeypatch.setattr("docker.deploy.google_vertex.time.time", lambda: next(ticks))


def test_a_failed_rollback_is_said(gcloud: FakeCloud, service: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    image("--public")
    service.broken.add("my-app")
    gcloud.fail("--to-revisions", "PERMISSION_DENIED")
    assert image("--public") == 1
    error = capsys.readouterr().err
    assert "NOT rolled back: the traffic" in error
    assert "expected 200, found 500" in error


def test_a_rehearsal_runs_nothing(gcloud: FakeCloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert image("--dry-run", "again") == 0
    assert gcloud.calls == []
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("gcloud ", "# ")) for line in lines)
    assert [line for line in lines if "--no-traffic --tag candidate" in line]


def test_without_a_project_nothing_is_changed(gcloud: FakeCloud, capsys: pytest.CaptureFixture[str]) -> None:
    gcloud.write(gcloud.state | {"project": ""})
    assert image() == 1
    assert not gcloud.called("run|secrets")
    assert "no project" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "words", "expected"),
    [
        ("run", ["--name", "My-App"], "--name"),
        ("run", ["--name", "a" * 38], "at most 37"),
        ("run", ["--region", "europe"], "--region"),
        ("run", ["--cpu", "3"], "--cpu"),
        ("run", ["--cpu", "1", "--memory", "8Gi"], "512 to 4096"),
        ("run", ["--gpu", "--memory", "8Gi"], "16384"),
        ("run", ["--memory", "lots"], "512Mi or 2Gi"),
        ("run", ["--memory", "512Mi", "--backend", "torchscript"], "needs 1024 MiB"),
        ("vertex", ["--secret", "THINLENS_API_KEYS"], "sends no keys"),
        ("vertex", ["--min-instances", "0"], "one replica at least"),
    ],
)
def test_a_wrong_option_is_one_line_before_anything_is_run(
    gcloud: FakeCloud, capsys: pytest.CaptureFixture[str], kind: str, words: list[str], expected: str
) -> None:
    assert run(kind, "--image", IMAGE, *words) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert gcloud.calls == []


def test_the_settings_are_those_of_the_service() -> None:
    assert set(known()) == {f"THINLENS_{name.upper()}" for name in own_fields()}


def test_settings_of_a_file_may_be_secrets(gcloud: FakeCloud, tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_text(f"# keys\nTHINLENS_API_KEYS={SECRET}\n\nTHINLENS_THREADS=2\n")
    assert image("--public", "--settings-file", str(path)) == 0
    assert gcloud.state["secrets"] == {"my-app-api-keys": [SECRET]}


def test_the_smoke_test_passes_on_the_service_itself(live_server: str) -> None:
    Smoke(limit_s=60).check(live_server)


def test_the_smoke_test_wants_something_found() -> None:
    with pytest.raises(Stopped, match="nothing found"):
        Smoke().judge("somewhere", {"predictions": []})
    Smoke(may_be_empty=True).judge("somewhere", {"predictions": []})
