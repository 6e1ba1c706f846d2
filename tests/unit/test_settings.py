from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from shared import settings
from shared.errors import ConfigurationError
from shared.settings import Settings
from shared.url_policy import UrlPolicy
from tests.servers import ROOT


def read(**variables: str) -> Settings:
    return Settings.from_environ({f"THINLENS_{name}": text for name, text in variables.items()})


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environ({}) == Settings()


def test_the_defaults_are_those_of_the_design() -> None:
    default = Settings()
    assert (default.backend, default.max_body_bytes, default.max_pixels) == ("onnx", 20_000_000, 64_000_000)
    assert (default.timeout_s, default.url_timeout_s, default.url_fetch) == (60, 10, "public")


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert read(THREADS="", API_KEYS="", MODEL="") == Settings()


def test_text_becomes_the_fields_type() -> None:
    found = read(THREADS="4", TIMEOUT_S="2.5", MAX_PIXELS="64e6", API_KEYS="a, b ,", SCORE_THRESHOLD="0.3", MODEL="m")
    assert (found.threads, found.timeout_s, found.max_pixels) == (4, 2.5, 64_000_000)
    assert (found.api_keys, found.score_threshold, found.model) == (("a", "b"), 0.3, "m")


WRONG = {
    "THREADS": ["-1", "many", "1.5", "9" * 5000, "1e9"],
    "MAX_CONCURRENCY": ["-1", "true"],
    "TIMEOUT_S": ["0", "nan", "inf", "4000", "-1"],
    "MAX_BODY_MB": ["0", "inf", "nan", "1e309"],
    "MAX_PIXELS": ["0", "1.5"],
    "SCORE_THRESHOLD": ["1.1", "nan"],
    "BACKEND": ["torch", "ONNX"],
    "LOG_LEVEL": ["verbose"],
    "AZURE_AUTH_LEVEL": ["none"],
    "URL_FETCH": ["http://a", "off,public", "10.0.0.1/8", ","],
    "API_KEYS": [",", " ", " , "],
    "CORS_ORIGINS": ["a.example", "https://a.example/", "https://a.example/path", ","],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRONG.items() for text in texts])
def test_a_wrong_value_is_named_with_its_variable(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^THINLENS_{name}: ") as raised:
        read(**{name: text})
    assert len(str(raised.value)) < 300


def test_a_wrong_choice_is_told_the_right_ones() -> None:
    with pytest.raises(ConfigurationError, match="expected one of debug, error, info, warning, found 'loud'"):
        read(LOG_LEVEL="loud")


@pytest.mark.parametrize("variable", ["THINLENS_THREAD", "THINLENS_", "THINLENS_threads", "THINLENS_HEALTH_ROUTE"])
def test_an_unknown_variable_is_an_error(variable: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}: unknown setting"):
        Settings.from_environ({variable: "1"})


def test_an_unknown_variable_is_told_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'THINLENS_TIMEOUT_S'"):
        read(TIMEOUT="1")


def test_what_kubernetes_writes_beside_a_service_of_our_name_is_no_setting() -> None:
    environ = {
        "THINLENS_SERVICE_HOST": "10.0.0.1",
        "THINLENS_SERVICE_PORT": "80",
        "THINLENS_SERVICE_PORT_HTTP": "80",
        "THINLENS_PORT": "tcp://10.0.0.1:80",
        "THINLENS_PORT_80_TCP": "tcp://10.0.0.1:80",
        "THINLENS_PORT_80_TCP_ADDR": "10.0.0.1",
        "THINLENS_GPU_SERVICE_HOST": "10.0.0.2",
        "THINLENS_GPU_PORT": "tcp://10.0.0.2:80",
    }
    assert Settings.from_environ(environ) == Settings()


def test_a_port_that_somebody_meant_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="THINLENS_PORT: unknown setting"):
        read(PORT="8080")


def test_other_programs_variables_are_none_of_ours() -> None:
    assert Settings.from_environ({"PATH": "/bin", "PORT": "80", "thinlens_threads": "x"}) == Settings()


def test_vertex_names_its_routes() -> None:
    found = Settings.from_environ({"AIP_HEALTH_ROUTE": "/v1/h", "AIP_PREDICT_ROUTE": "/v1/models/m:predict"})
    assert (found.health_route, found.predict_route) == ("/v1/h", "/v1/models/m:predict")


@pytest.mark.parametrize("variable", ["AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"])
@pytest.mark.parametrize("route", ["predict", "/<name>", "/a b", "/a?b"])
def test_a_route_that_is_no_path_is_named(variable: str, route: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable}: "):
        Settings.from_environ({variable: route})


def test_every_default_is_itself_a_right_value() -> None:
    assert msgspec.convert(msgspec.to_builtins(Settings()), Settings) == Settings()
    UrlPolicy.parse(Settings().url_fetch)


def test_every_setting_says_what_it_means() -> None:
    for kind in settings.own_fields().values():
        assert next(meta for meta in get_args(kind) if isinstance(meta, msgspec.Meta)).description


def test_the_table_has_a_row_for_every_setting() -> None:
    rows = settings.table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [f"THINLENS_{name.upper()}" for name in settings.own_fields()]
    assert all(row.count("|") == 4 for row in rows)


def test_the_readme_has_the_table_as_it_is() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, begin, rest = text.partition("<!-- settings -->\n")
    table, end, _ = rest.partition("<!-- /settings -->")
    assert begin
    assert end
    assert table == settings.table(), "run: python -m tests.readme"


SERVER = {"THINLENS_BACKEND": "triton", "THINLENS_BACKEND_URL": "http://gpu.example:8000"}


@pytest.mark.parametrize(
    "url",
    ["http://user:secret@gpu.example", "http://gpu.example/?token=secret", "http://:80", "http://gpu.example:99999",
     "http://gpu.example:port", "http://[::1", "gpu.example:8000", "ftp://gpu.example", "http://gpu.example /x"],
)  # fmt: skip
def test_a_wrong_url_of_the_model_server_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="THINLENS_BACKEND_URL: expected http://HOST:PORT") as raised:
        Settings.from_environ(SERVER | {"THINLENS_BACKEND_URL": url})
    assert "secret" not in str(raised.value)
    assert "gpu" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"THINLENS_BACKEND_URL": ""}, "BACKEND_URL: backend 'triton' needs the model server's URL"),
        ({"THINLENS_BACKEND_PROTOCOL": "grpc"}, "BACKEND_URL: expected grpc://… for BACKEND_PROTOCOL=grpc, found http"),
        (
            {"THINLENS_BACKEND_PROTOCOL": "grpc", "THINLENS_BACKEND_URL": "grpc://gpu.example/path"},
            "BACKEND_URL: expected no path for gRPC",
        ),
        ({"THINLENS_BACKEND_TOKEN": "two\r\nlines"}, "BACKEND_TOKEN: expected printable ASCII"),
        ({"THINLENS_BACKEND": "tfserving", "THINLENS_FORWARD": "encoded"}, "FORWARD: encoded needs BACKEND=triton"),
        ({"THINLENS_BACKEND": "onnx"}, "BACKEND_URL: only for a model server"),
        ({"THINLENS_BACKEND": "onnx", "THINLENS_BACKEND_URL": "", "THINLENS_FALLBACK": "onnx"}, "FALLBACK: only for a"),
        ({"THINLENS_DEVICE": "gpu"}, "DEVICE"),
    ],
)
def test_settings_of_a_model_server_that_do_not_fit_are_named(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings.from_environ(SERVER | given)


def test_a_model_server_is_named_by_its_url() -> None:
    settings = Settings.from_environ(SERVER)
    assert (settings.external, settings.backend_url) == (True, "http://gpu.example:8000")
