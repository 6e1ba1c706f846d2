"""`tfserving`: a bundle as a model repository of TensorFlow Serving, with the configuration that names its models."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from model_server.failures import Stopped
from model_server.landing import TFSERVING_MARK, check_place, landing
from model_server.manifests import problems
from model_server.served_version import served_version
from shared.artifacts import SAVED_MODEL
from shared.manifest import Bundle, NetworkSpec, read_bundle

CONFIG = "models.config"
BATCHING = "batching_parameters.txt"

_CONVERT = "`python -m model_server convert BUNDLE --to saved-model --into OUT`"
_BASE = re.compile(r"/|[a-z][a-z0-9+.-]*://.")
# tensorflow_serving/servables/tensorflow/session_bundle_config.proto. A picture waits at most a millisecond for others.
_BATCHING_PARAMETERS = """\
max_batch_size { value: 8 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 100 }
"""


class Options(msgspec.Struct, frozen=True):
    """`base_path`, a path or a URL, is where the server finds the repository. `version` goes before the bundle's."""

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

    Raises Stopped for a bundle that is not whole or has no SavedModel, a version that is no number, a base path that is
    none, and a folder that is there already.
    """
    _check_base(options.base_path)
    for problem in problems(folder):
        raise Stopped(problem)
    bundle = read_bundle(folder)
    owners = [*bundle.parts.values()] or [bundle]
    versions = {owner.model.name: _version(owner, options) for owner in owners}
    served = [_served(network, versions[network.bundle][0]) for network in bundle.specs]
    _check_names(bundle.model.name, [one.name for one in served])
    if options.batching:
        for owner in owners:
            _check_batching(owner.specs, owner.model.preprocess.layout)
    check_place(out, TFSERVING_MARK, replace=options.replace)
    with landing(out, resumes=False) as place:
        check_place(out, TFSERVING_MARK, replace=options.replace)  # another command may have written it meanwhile
        shutil.rmtree(place.content, ignore_errors=True)
        place.content.mkdir()
        for source, target in ((source, target) for one in served for source, target in one.files.items()):
            (place.content / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place.content / target)
        _write(place.content / CONFIG, config_text([one.name for one in served], options.base_path))
        if options.batching:
            _write(place.content / BATCHING, _BATCHING_PARAMETERS)
        (place.content / TFSERVING_MARK).touch()
        place.land()
    names = ", ".join(one.name for one in served)
    numbers = ", ".join(dict.fromkeys(str(version) for version, _ in versions.values()))
    notes = [note for _, note in versions.values()]
    lines = [f"{out}: {names}, version {numbers}", *notes, f"mount it as {options.base_path} and start"]
    return "\n".join([*filter(None, lines), f"  {_command(options)}"])


def config_text(names: list[str], base_path: str) -> str:
    """models.config: a ModelServerConfig of tensorflow_serving/config/model_server_config.proto as text."""
    entries = "".join(
        "  config {\n"
        f"    name: {json.dumps(name)}\n"
        f"    base_path: {json.dumps(_below(base_path, name))}\n"
        '    model_platform: "tensorflow"\n'
        "    model_version_policy { latest { num_versions: 1 } }\n"
        "  }\n"
        for name in names
    )
    return f"model_config_list {{\n{entries}}}\n"


def _check_base(base_path: str) -> None:
    if not _BASE.match(base_path):
        raise Stopped(
            f"--base-path: expected an absolute path or a URL such as gs://bucket/models, found {base_path!r}"
        )


def _below(base_path: str, name: str) -> str:
    """As text: a path's rules would take one of the slashes after a scheme away."""
    return f"{base_path.rstrip('/')}/{name}"


def _version(bundle: Bundle, options: Options) -> tuple[int, str]:
    return served_version(bundle.model.name, bundle.model.version, options.version)


def _served(network: NetworkSpec, version: int) -> _Served:
    field = f"{network.field}.artifacts.tensorflow"
    artifact = network.artifacts.get("tensorflow")
    if artifact is None:
        found = ", ".join(sorted(network.artifacts)) or "nothing"
        raise Stopped(f"{field}: expected a SavedModel, found only {found}; TensorFlow Serving runs nothing else")
    path = PurePosixPath(artifact.file)
    if path.name != SAVED_MODEL:
        raise Stopped(
            f"{field}: expected a SavedModel's {SAVED_MODEL}, found {artifact.file!r}, which TensorFlow Serving does "
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
            raise Stopped(f"{field}: {file!r} does not lie beside {SAVED_MODEL}, where TensorFlow Serving looks for it")
        yield network.folder / file, f"{network.served_as}/{version}/{path.relative_to(folder)}"


def _check_names(bundle: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise Stopped(f"{bundle}: expected networks with different served_as, found {sorted(names)}")


def _check_batching(networks: list[NetworkSpec], layout: str) -> None:
    """Whether tensors may be put one behind the other along their first axis, which is what batching does."""
    if "N" not in layout:
        raise Stopped(f"--batching needs pictures with an axis for it, found preprocess.layout {layout!r}")
    for network in networks:
        for spec in (*network.inputs, *network.outputs):
            if not spec.shape or spec.shape[0] is not None:
                raise Stopped(
                    f"{network.field}: --batching needs tensors whose first axis is free, "
                    f"found {spec.name!r} of shape {list(spec.shape)}"
                )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _command(options: Options) -> str:
    config, batching = (_below(options.base_path, name) for name in (CONFIG, BATCHING))
    command = ["tensorflow_model_server", "--port=8500", "--rest_api_port=8501", f"--model_config_file={config}"]
    if options.batching:
        command += ["--enable_batching", f"--batching_parameters_file={batching}"]
    return shlex.join(command)
