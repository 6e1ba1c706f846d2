"""`tfserving`: a bundle as a model repository of TensorFlow Serving, with the configuration that names its models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from model_server.failures import Stopped
from model_server.landing import landing
from model_server.manifests import problems
from shared.manifest import NetworkSpec, read_bundle

CONFIG = "models.config"
BATCHING = "batching_parameters.txt"
_SAVED_MODEL = "saved_model.pb"
_CONVERT = "`python -m model_server convert BUNDLE --to saved-model --into OUT`"
_LARGEST_VERSION = 2**63 - 1
# tensorflow_serving/servables/tensorflow/session_bundle_config.proto. A picture waits at most a millisecond for others.
_BATCHING_PARAMETERS = """\
max_batch_size { value: 8 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 100 }
"""


class Options(msgspec.Struct, frozen=True):
    """`base_path` is where the server will find the repository. `version` goes before the bundle's own."""

    base_path: str = "/models"
    version: str | None = None
    batching: bool = False
    replace: bool = False


class _Served(msgspec.Struct, frozen=True):
    """One network in the repository: its name there, and where each of its files lies and goes."""

    name: str
    files: dict[Path, str]


def write_repository(folder: Path, out: Path, options: Options) -> str:
    """Writes `out` from the bundle in `folder`, and says how a server is started on it.

    Raises Stopped for a bundle that is not whole or has no SavedModel, a version that is no number, and a folder that
    is there already.
    """
    for problem in problems(folder):
        raise Stopped(problem)
    bundle = read_bundle(folder)
    networks = [bundle.network(name) for name in bundle.model.networks]
    version = _version(options.version or bundle.model.version, bundle.model.name)
    served = [_served(network, version) for network in networks]
    _check_names(bundle.model.name, [one.name for one in served])
    if options.batching:
        _check_batching(networks)
    _check_place(out, replace=options.replace)
    with landing(out) as place:
        shutil.rmtree(place.content, ignore_errors=True)
        place.content.mkdir()
        for source, target in ((source, target) for one in served for source, target in one.files.items()):
            (place.content / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place.content / target)
        _write(place.content / CONFIG, config_text([one.name for one in served], options.base_path))
        if options.batching:
            _write(place.content / BATCHING, _BATCHING_PARAMETERS)
        place.land()
    names = ", ".join(one.name for one in served)
    return f"{out}: {names}, version {version}\nmount it as {options.base_path} and start\n  {_command(options)}"


def config_text(names: list[str], base_path: str) -> str:
    """models.config: a ModelServerConfig of tensorflow_serving/config/model_server_config.proto as text."""
    entries = "".join(
        "  config {\n"
        f"    name: {json.dumps(name)}\n"
        f"    base_path: {json.dumps(str(PurePosixPath(base_path) / name))}\n"
        '    model_platform: "tensorflow"\n'
        "    model_version_policy { latest { num_versions: 1 } }\n"
        "  }\n"
        for name in names
    )
    return f"model_config_list {{\n{entries}}}\n"


def _version(text: str, bundle: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _LARGEST_VERSION):
        raise Stopped(
            f"{bundle}: version {text!r} is no whole number, as TensorFlow Serving needs; give model.json one, "
            f"or say --version N"
        )
    return int(text)


def _served(network: NetworkSpec, version: int) -> _Served:
    field = f"{network.field}.artifacts.tensorflow"
    artifact = network.artifacts.get("tensorflow")
    if artifact is None:
        found = ", ".join(sorted(network.artifacts)) or "nothing"
        raise Stopped(f"{field}: expected a SavedModel, found only {found}; TensorFlow Serving runs nothing else")
    path = PurePosixPath(artifact.file)
    if path.name != _SAVED_MODEL:
        raise Stopped(
            f"{field}: expected a SavedModel's {_SAVED_MODEL}, found {artifact.file!r}, which TensorFlow Serving does "
            f"not take; {_CONVERT} makes one of a frozen graph"
        )
    files = dict(_inside(network, [file.file for file in artifact.files], path.parent, version, field))
    return _Served(network.served_as, files)


def _inside(
    network: NetworkSpec, files: list[str], folder: PurePosixPath, version: int, field: str
) -> Iterator[tuple[Path, str]]:
    for file in files:
        path = PurePosixPath(file)
        if not path.is_relative_to(folder):
            raise Stopped(
                f"{field}: {file!r} does not lie beside {_SAVED_MODEL}, where TensorFlow Serving looks for it"
            )
        yield network.folder / file, f"{network.served_as}/{version}/{path.relative_to(folder)}"


def _check_names(bundle: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise Stopped(f"{bundle}: expected networks with different served_as, found {sorted(names)}")


def _check_batching(networks: list[NetworkSpec]) -> None:
    """Whether tensors may be put one behind the other along their first axis, which is what batching does."""
    for network in networks:
        for spec in (*network.inputs, *network.outputs):
            if not spec.shape or spec.shape[0] is not None:
                raise Stopped(
                    f"{network.field}: --batching needs tensors whose first axis is free, "
                    f"found {spec.name!r} of shape {list(spec.shape)}"
                )


def _check_place(out: Path, *, replace: bool) -> None:
    if not out.exists():
        return
    if not (out / CONFIG).is_file():
        raise Stopped(f"{out} exists and was not made by this command; choose another folder or remove it")
    if not replace:
        raise Stopped(f"{out} exists already; --replace puts the new one in its place")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _command(options: Options) -> str:
    base = PurePosixPath(options.base_path)
    command = ["tensorflow_model_server", "--port=8500", "--rest_api_port=8501", f"--model_config_file={base / CONFIG}"]
    if options.batching:
        command += ["--enable_batching", f"--batching_parameters_file={base / BATCHING}"]
    return " ".join(command)
