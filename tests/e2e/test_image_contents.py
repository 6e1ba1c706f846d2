"""What is in the container images: what their variant needs, and nothing that only building them needed."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import NamedTuple, TypeAlias

import pytest

from docker.matrix.engine import asked
from docker.matrix.variants import EXTERNAL, Variant
from tests import containers
from tests.container_images import BUILT
from tests.containers import Engine, Image

pytestmark = pytest.mark.images

_BUNDLE = "/model_server/models/coco-ssd-mobilenet-v2/"
_PLACES = {"azure": ("/home/site/wwwroot/",)}
_PACKAGES = {"azure": "/home/site/wwwroot/.python_packages/lib/site-packages"}
_WEIGHTS = {
    "onnx": {"model.optimised.onnx"},
    "torchscript": {"model.ts"},
    "tensorflow": {"saved_model.pb"},
    EXTERNAL: set[str](),
}
_FRAMEWORKS = {"onnx": "onnxruntime", "torchscript": "torch", "tensorflow": "tensorflow"}
_PIXELS = {"numpy", "PIL"}
_SMALL = 4096
_LEGAL = r"/(LICEN[CS]E|COPYING|NOTICE)[^/]*$"  # each work brings its own, whatever the others bring
_UNWANTED = {
    "compilers and tools": r"/bin/(gcc|g\+\+|cc|c\+\+|clang|ld|as|make|cmake|ninja|git|pip[\d.]*|uv)$",
    "what installs packages": r"/site-packages/(pip|uv|ensurepip)/",
    "what only a compiler reads": r"\.(h|hpp|pxd|pyx|pyi|a|o)$",
    "caches": r"/\.cache/|/\.thinlens-cache/(?!\w+\.verified\.json$)|\.(whl|tar\.gz|deb)$",
    "places of the build": r"^/(tmp|root|build|wheels|var)/",
    "tests": r"/tests?/(.+/)?(test_\w+|\w+_test)\.py$|/conftest\.py$",
}
_LISTED = """
import hashlib, json, os, sys
found = {}
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys", "/dev")]
    for path in (os.path.join(folder, name) for name in names):
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path] = [os.path.getsize(path), digest, os.stat(path).st_ino]
json.dump(found, sys.stdout)
"""
_KNOWN = "import importlib.util as found; print(*[name for name in {names!r} if found.find_spec(name)])"
_OF_THE_ENGINE = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"}


class File(NamedTuple):
    size: int
    sha256: str
    inode: int


Files: TypeAlias = dict[str, File]


@pytest.fixture(scope="session")
def bases() -> dict[str, Files]:
    """The files of the base images, by tag, as far as they have been looked at."""
    return {}


@pytest.fixture(scope="session")
def added(engine: Engine, image: Image, variant: Variant, bases: dict[str, Files]) -> Files:
    """The files that the image adds to its base, or changes there."""
    azure = variant.cloud == "azure"
    base = asked("AZURE_IMAGE", containers.AZURE_IMAGE) if azure else asked("PYTHON_IMAGE", containers.PYTHON_IMAGE)
    if base not in bases:
        bases[base] = _files(engine, base)
    there = bases[base]
    return {
        path: file
        for path, file in _files(engine, image.tag).items()
        if path not in there or there[path].sha256 != file.sha256
    }


def _files(engine: Engine, tag: str) -> Files:
    shut = ("--network", "none", "--user", "0", "--entrypoint", "python")
    found = json.loads(engine.docker("run", "--rm", *shut, tag, "-S", "-c", _LISTED))
    return {path: File(*values) for path, values in found.items() if path not in _OF_THE_ENGINE}


def test_only_the_stages_of_the_variant_are_built(image: Image, variant: Variant) -> None:
    if BUILT:
        pytest.skip("NOT RUN: the image was built elsewhere, where its log is")
    installing = {stage for stage in image.stages if stage.startswith("deps-")}
    assert installing == {f"deps-{variant.runtime}"}


def test_the_image_has_no_framework_but_its_own(engine: Engine, image: Image, variant: Variant) -> None:
    own = {_FRAMEWORKS[variant.runtime]} if variant.runtime in _FRAMEWORKS else set()
    assert _importable(engine, image, variant, {*_FRAMEWORKS.values(), "ai_edge_litert"}) == own


def test_pixels_are_read_only_where_tensors_are_made(engine: Engine, image: Image, variant: Variant) -> None:
    forwards_pictures = dict(variant.arguments).get("FORWARD") == "encoded"
    assert _importable(engine, image, variant, _PIXELS) == (set() if forwards_pictures else _PIXELS)


def _importable(engine: Engine, image: Image, variant: Variant, names: set[str]) -> set[str]:
    path = ["--env", f"PYTHONPATH={_PACKAGES[variant.cloud]}"] if variant.cloud in _PACKAGES else []
    code = _KNOWN.format(names=sorted(names))
    return set(engine.docker("run", "--rm", "--network", "none", *path, image.tag, "python", "-c", code).split())


def test_of_the_bundle_only_what_the_runtime_reads_is_there(added: Files, variant: Variant) -> None:
    bundle = {path.rpartition("/")[2] for path in added if _BUNDLE in path}
    ends = (".onnx", ".ort", ".ts", ".pb", ".tflite")
    assert {name for name in bundle if name.endswith(ends)} == _WEIGHTS[variant.runtime]
    assert {"LICENSE", "model.json"} <= bundle


def test_python_starts_without_a_word(engine: Engine, image: Image) -> None:
    assert engine.asked(image, "python", "-c", "") == ""


def test_no_door_of_another_cloud_is_there(added: Files, variant: Variant) -> None:
    known = {"function_app.py", "host.json", "main.py", "gunicorn.conf.py"}
    root = "/home/site/wwwroot/" if variant.cloud == "azure" else "/app/"
    doors = {path.removeprefix(root) for path in added} & known
    assert doors == ({"function_app.py", "host.json"} if variant.cloud == "azure" else {"gunicorn.conf.py"})


def test_everything_lies_where_the_application_does(added: Files, variant: Variant) -> None:
    places = _PLACES.get(variant.cloud, ("/app/", "/opt/venv/"))
    elsewhere = [path for path in added if not path.startswith(places)]
    assert not elsewhere, "\n".join(elsewhere)


@pytest.mark.parametrize("kind", _UNWANTED)
def test_nothing_is_left_that_only_building_needs(kind: str, added: Files) -> None:
    left = [path for path in added if re.search(_UNWANTED[kind], path)]
    assert not left, "\n".join(left)


def test_no_file_is_there_twice(added: Files) -> None:
    by_content: dict[str, dict[int, str]] = defaultdict(dict)
    for path, file in added.items():
        if file.size > _SMALL and not re.search(_LEGAL, path):
            by_content[file.sha256][file.inode] = path
    twice = [" ".join(sorted(paths.values())) for paths in by_content.values() if len(paths) > 1]
    assert not twice, "\n".join(twice)


def test_only_the_functions_host_runs_as_root(engine: Engine, image: Image, variant: Variant) -> None:
    assert engine.asked(image, "id", "-u") == ("0" if variant.cloud == "azure" else "10001")
