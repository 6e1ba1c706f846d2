"""Who may import whom, and what the thin path leaves out."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.servers import ROOT, environ

# From the ground up: a module imports from its own floor and those below it.
FLOORS = [
    {"shared", "tensors", "errors", "validation", "host", "bounds", "build", "url_policy", "url_syntax"},
    {"settings", "call", "images", "encoded", "geometry", "predictions", "manifest", "parameters", "sources", "urls",
     "url_connections", "artifacts", "admission", "retries", "server_http", "server_connections", "server_place",
     "trust", "dialling", "devices", "embeddings", "embedding_files", "memory", "needs", "masks", "encoding"},
    {"backends", "tasks", "render", "open_inference", "open_inference_http"},
    {"predictor", "local", "forwarding", "forwarded", "remote", "served", "service"},
    {"web"},
]  # fmt: skip
CLOUDS = ("azure", "functions_framework", "google")
NO_CLOUD = "google.protobuf"
FRAMEWORKS = frozenset(
    ("torch", "torchvision", "tensorflow", "tf2onnx", "onnxruntime", "tritonclient", "grpc", "ai_edge_litert")
)
# A model that is brought is looked at once, by a command that reaches what it needs by name.
LOOKING = "model_server/describe/"


def files(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(nodes: ast.AST, path: Path) -> Iterator[str]:
    """The full name of whatever is imported anywhere below `nodes`."""
    for node in ast.walk(nodes):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_the_top(path: Path) -> Iterator[str]:
    for node in tree(path).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node, path)


def everything(path: Path) -> list[str]:
    return list(imports(tree(path), path))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor(name: str) -> int:
    """The floor of `shared.NAME...`."""
    part = name.split(".")[1] if "." in name else name
    (found,) = (number for number, names in enumerate(FLOORS) if part in names)
    return found


SHARED, SERVER, DOORS = files("shared"), files("model_server"), files("function_app")


def by_place(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SHARED, ids=by_place)
def test_shared_imports_from_its_own_floor_and_below(path: Path) -> None:
    own = floor(module(path))
    for name in everything(path):
        if name.split(".")[0] == "shared" and name != "shared.__version__":
            assert floor(name) <= own, f"{name} is above"


@pytest.mark.parametrize("path", SHARED, ids=by_place)
def test_shared_knows_neither_the_doors_nor_the_model_server(path: Path) -> None:
    assert not [
        name for name in everything(path) if name.split(".")[0] in ("model_server", "function_app", "main", "tests")
    ]


def test_tasks_and_backends_do_not_know_each_other_but_for_the_seam() -> None:
    for path in files("shared/backends"):
        assert not [name for name in everything(path) if name.startswith("shared.tasks")]
    for path in files("shared/tasks"):
        seen = [name for name in everything(path) if name.startswith("shared.backends")]
        assert set(seen) <= {"shared.backends.Run"}


@pytest.mark.parametrize("path", SERVER, ids=by_place)
def test_the_model_server_does_not_know_the_doors(path: Path) -> None:
    assert not [name for name in everything(path) if name.split(".")[0] in ("function_app", "main", "tests")]


@pytest.mark.parametrize("path", DOORS, ids=by_place)
def test_the_doors_do_not_know_the_model_server(path: Path) -> None:
    assert not [name for name in everything(path) if name.split(".")[0] in ("model_server", "tests")]


@pytest.mark.parametrize("path", SHARED + SERVER, ids=by_place)
def test_clouds_are_known_to_the_doors_only(path: Path) -> None:
    names = [name for name in everything(path) if not name.startswith(NO_CLOUD)]
    assert not [name for name in names if name.split(".")[0] in CLOUDS]


@pytest.mark.parametrize("path", SHARED + SERVER + DOORS, ids=by_place)
def test_a_framework_is_imported_at_the_top_of_its_own_file_only(path: Path) -> None:
    place = by_place(path)
    used = [name for name in everything(path) if name.split(".")[0] in FRAMEWORKS]
    by_name = place.startswith(("shared/backends/", LOOKING)) and path.stem != "__init__"
    if place.startswith("model_server/export/") or by_name:
        assert set(used) == {name for name in at_the_top(path) if name.split(".")[0] in FRAMEWORKS}
    else:
        assert not used


@pytest.mark.parametrize("path", SHARED, ids=by_place)
def test_the_environment_is_read_in_one_file(path: Path) -> None:
    read = [
        node
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "environb", "getenv")
        and ast.unparse(node.value) == "os"
    ]
    named = [name for name in everything(path) if name in ("os.environ", "os.environb", "os.getenv")]
    assert by_place(path) == "shared/settings.py" or not read + named


def test_no_import_goes_round_in_circles() -> None:
    known = {module(path) for path in SHARED}
    needs = {
        module(path): {name if name in known else name.rpartition(".")[0] for name in at_the_top(path)} & known
        for path in SHARED
    }
    list(TopologicalSorter({name: needed - {name, "shared"} for name, needed in needs.items()}).static_order())


def test_the_doors_are_no_package_and_shadow_nothing() -> None:
    assert not [path for path in DOORS if path.name == "__init__.py"]
    entries = [path.stem for path in (ROOT / "function_app").iterdir()]
    assert not set(entries) & (sys.stdlib_module_names | {"shared", "model_server", "azure", "google", "werkzeug"})


_LATER = (
    "torch", "tensorflow", "tritonclient", "grpc", "onnxruntime", "numpy", "PIL", "PIL.ImageDraw", "PIL.ImageFont",
    "requests", "urllib3", "certifi", "idna", "prometheus_client", "fsspec", "azure", "functions_framework", "flask",
    "shared.images", "shared.render", "shared.urls", "shared.web.openapi",
)  # fmt: skip
_THIN = """
import json, sys
import shared.web
from shared.settings import Settings
from shared.web.application import Application
application = Application(Settings.load())
statuses = []
for path in {paths}:
    environ = {{"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "HTTP_ACCEPT": "*/*"}}
    application(environ, lambda status, headers, error=None: statuses.append(status))
print(json.dumps([statuses, sorted(sys.modules)]))
"""


def modules_after(*paths: str) -> set[str]:
    """What a new process has imported once it has answered these requests."""
    command = [sys.executable, "-c", _THIN.format(paths=paths)]
    result = subprocess.run(command, cwd=ROOT, env=environ({}), capture_output=True, text=True, check=True)
    statuses, modules = json.loads(result.stdout)
    assert statuses == ["200 OK"] * len(paths)
    return set(modules)


def test_a_process_that_has_seen_no_picture_is_thin() -> None:
    assert not modules_after("/health", "/version", "/", "/static/app.js") & set(_LATER)


def test_what_is_asked_of_the_models_brings_no_runtime() -> None:
    brought = modules_after("/models", "/openapi.json") & set(_LATER)
    assert not brought & {"onnxruntime", "requests", "prometheus_client", "PIL.ImageDraw", "PIL.ImageFont"}


def test_counts_are_written_by_a_library_that_is_imported_then() -> None:
    assert modules_after("/metrics") & set(_LATER) == {"prometheus_client"}
