"""`triton`: bundles as a model repository of NVIDIA's Triton, its configuration made from the declarations."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model_server.failures import Stopped
from model_server.landing import TRITON_MARK, check_place, landing
from model_server.manifests import problems
from model_server.served_version import served_version
from model_server.triton.config import (
    FRAMEWORKS,
    Platform,
    Serving,
    check_accelerator,
    check_axes,
    check_positional,
    encoded_config,
    may_be_batched,
    network_config,
)
from model_server.triton.text_format import Message, text_format
from shared import __version__
from shared.artifacts import SAVED_MODEL
from shared.manifest import MANIFEST, Bundle, NetworkSpec, Preprocess, read_bundle
from shared.tensors import Artifact

_CONFIG = "config.pbtxt"
_ROOT = Path(__file__).resolve().parent.parent.parent
_MODELS = Path(__file__).resolve().parent / "python"
_NOT_SERVED = ("__pycache__", "static")
_BUNDLES = "bundles"  # by their names: parts lie beside what they are of


Files = Mapping[str, Path]
"""What a model's version folder holds: where each file comes from."""


@dataclass(frozen=True, slots=True)
class ServedAs:
    """One model of the repository."""

    name: str
    version: str
    config: Message
    files: Files
    note: str


def write_repository(bundles: Sequence[Path], out: Path, serving: Serving, *, replace: bool = False) -> str:
    """Writes the model repository `out`, whole or not at all, and says what is in it. Raises Stopped."""
    out = out.absolute()
    check_place(out, TRITON_MARK, replace=replace)
    models = list(_models([_whole(folder) for folder in bundles], serving))
    _check_names(models)
    with landing(out, resumes=False) as place:
        check_place(out, TRITON_MARK, replace=replace)  # another command may have written it meanwhile
        shutil.rmtree(place.content, ignore_errors=True)
        place.content.mkdir()
        for model in models:
            _write(model, place.content / model.name)
        (place.content / TRITON_MARK).touch()
        place.land()
    return "\n".join([f"{out}: {len(models)} models", *(f"  {model.name}: {model.note}" for model in models)])


def _whole(folder: Path) -> Bundle:
    for problem in problems(folder):
        raise Stopped(problem)
    return read_bundle(folder)


def _check_names(models: Sequence[ServedAs]) -> None:
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise Stopped(f"two models of the repository would be named {name!r}; give one another served_as")


def _models(bundles: Sequence[Bundle], serving: Serving) -> Iterator[ServedAs]:
    """The networks of the bundles and of their parts; and where pictures come as they are, the bundles themselves."""
    for owner in _owners(bundles):
        for network in owner.specs:
            yield _network(owner, network, serving, serving.platform or _framework(owner.specs))
    for bundle in bundles if serving.forward == "encoded" else ():
        runs = {name: bundle.network(name).served_as for name in bundle.network_names}
        files = {**_code("forwarded"), **_declarations(bundle)}
        note = "python, pictures as they came"
        yield ServedAs(bundle.model.name, _version(bundle)[0], encoded_config(bundle, runs, serving), files, note)


def _owners(bundles: Sequence[Bundle]) -> Iterator[Bundle]:
    """Those with networks of their own. A part that several have in common, or that is given itself, comes once."""
    yield from (bundle for bundle in bundles if not bundle.parts)
    folders = {bundle.folder.resolve() for bundle in bundles}
    for part in (part for bundle in bundles for part in bundle.parts.values()):
        if part.folder.resolve() not in folders:
            folders.add(part.folder.resolve())
            yield part


def _network(bundle: Bundle, network: NetworkSpec, serving: Serving, platform: Platform) -> ServedAs:
    if reason := serving.lacking.get(platform):
        raise Stopped(f"{network.field}: {reason}")
    check_accelerator(serving, platform)
    check_axes(network)
    framework = _framework([network]) if platform == "python" else platform
    if framework not in network.artifacts:
        raise Stopped(f"{network.field}.artifacts: nothing for {framework!r}, found {sorted(network.artifacts)}")
    artifact = network.artifacts[framework]
    kind, files = _LAYOUTS[platform](network, artifact)
    told = {"bundle": network.bundle, "network": network.network, "framework": framework, "sha256": artifact.sha256}
    told |= {"bundle_version": network.version, "thinlens": __version__}
    if kind.get("platform") == "tensorflow_savedmodel":
        told["TF_SIGNATURE_DEF"] = artifact.signature
    if platform == "python":
        files = {**_declaration(bundle), **files}
    config = network_config(bundle, network, kind, told, serving)
    version, note = _version(bundle)
    batching = _batching(network, bundle.model.preprocess, serving)
    return ServedAs(
        network.served_as, version, config, files, "; ".join(filter(None, (f"{platform}, {batching}", note)))
    )


def _batching(network: NetworkSpec, preprocess: Preprocess, serving: Serving) -> str:
    if not may_be_batched(network, preprocess.layout):
        return "each request alone: axis 0 is not that of a batch, free in every tensor"
    return f"batches of up to {serving.max_batch}" if serving.max_batch > 1 else "each request alone"


def _framework(networks: Sequence[NetworkSpec]) -> Platform:
    for framework in FRAMEWORKS:
        if all(framework in network.artifacts for network in networks):
            return framework
    names = ", ".join(network.field for network in networks)
    raise Stopped(f"{names}: no framework that all have a file for, of {', '.join(FRAMEWORKS)}")


def _version(bundle: Bundle) -> tuple[str, str]:
    version, note = served_version(bundle.model.name, bundle.model.version)
    return str(version), note


def _onnx(network: NetworkSpec, artifact: Artifact) -> tuple[Message, Files]:
    kind = {"platform": "onnxruntime_onnx", "backend": "onnxruntime"}
    return kind, {"model.onnx": network.folder / artifact.file, **_beside(network, artifact, PurePosixPath())}


def _torchscript(network: NetworkSpec, artifact: Artifact) -> tuple[Message, Files]:
    check_positional(network)
    return {"platform": "pytorch_libtorch", "backend": "pytorch"}, {"model.pt": network.folder / artifact.file}


def _tensorflow(network: NetworkSpec, artifact: Artifact) -> tuple[Message, Files]:
    path, graph = PurePosixPath(artifact.file), network.folder / artifact.file
    if path.name == SAVED_MODEL:
        inside = PurePosixPath("model.savedmodel")
        kind = {"platform": "tensorflow_savedmodel", "backend": "tensorflow"}
        return kind, {str(inside / SAVED_MODEL): graph, **_beside(network, artifact, inside)}
    if path.suffix == ".pb":
        return {"platform": "tensorflow_graphdef", "backend": "tensorflow"}, {"model.graphdef": graph}
    raise Stopped(f"{network.field}: Triton runs a {SAVED_MODEL} or another .pb, found {path.name!r}")


def _python(network: NetworkSpec, artifact: Artifact) -> tuple[Message, Files]:
    weights = {f"bundle/{file.file}": network.folder / file.file for file in artifact.files}
    return {"backend": "python"}, _code("network") | weights


_LAYOUTS = {"onnx": _onnx, "torchscript": _torchscript, "tensorflow": _tensorflow, "python": _python}


def _beside(network: NetworkSpec, artifact: Artifact, inside: PurePosixPath) -> Files:
    """The files with a graph's weights, which it looks for relative to where it lies itself."""
    own = PurePosixPath(artifact.file).parent
    found = {}
    for file in artifact.data:
        if not PurePosixPath(file.file).is_relative_to(own):
            raise Stopped(f"{network.field}: expected {file.file!r} beside or below {artifact.file!r}")
        found[str(inside / PurePosixPath(file.file).relative_to(own))] = network.folder / file.file
    return found


def _declarations(bundle: Bundle) -> dict[str, Path]:
    """What is told of the bundle, and of its parts beside it."""
    told = _declaration(bundle, f"{_BUNDLES}/{bundle.model.name}")
    for part in bundle.parts.values():
        told |= _declaration(part, f"{_BUNDLES}/{part.folder.name}")
    return told


def _declaration(bundle: Bundle, place: str = "bundle") -> dict[str, Path]:
    labels = bundle.model.labels
    names = [MANIFEST, *([labels] if isinstance(labels, str) else [])]
    return {f"{place}/{name}": bundle.folder / name for name in names}


def _code(model: str) -> dict[str, Path]:
    """model.py, and `shared` beside it: nothing of this project has to be installed where the server runs."""
    shared = _ROOT / "shared"
    files = [path for path in sorted(shared.rglob("*")) if path.is_file()]
    served = [path for path in files if not set(_NOT_SERVED) & set(path.relative_to(shared).parts)]
    packages = [folder / "__init__.py" for folder in (_MODELS.parent.parent, _MODELS.parent, _MODELS)]
    beside = [*packages, _MODELS / "numpy_check.py"]
    return {"model.py": _MODELS / f"{model}.py"} | {
        path.relative_to(_ROOT).as_posix(): path for path in (*beside, *served)
    }


def _write(model: ServedAs, folder: Path) -> None:
    for name, source in model.files.items():
        target = folder / model.version / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (folder / _CONFIG).write_text(text_format(model.config), encoding="ascii", newline="\n")
