"""`convert`: a bundle's network for another backend, with raw pixels as its input, another size or fewer bits.

Each step takes one complete bundle and writes the next; the last one is compared with the source on real pictures.
"""

from __future__ import annotations

import shutil
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from model_server.comparison.agreement import Tolerance
from model_server.comparison.photos import pictures
from model_server.conversion import redeclare
from model_server.conversion.fidelity import Fidelity, Side, compared
from model_server.conversion.graph_steps import fold, half, int8, resize
from model_server.conversion.routes import ROUTES, find_origin
from model_server.conversion.steps import LOSSY, Made, Making, Origin, Step, Wishes, framework, opened, side
from model_server.conversion.targets import BACKENDS
from model_server.failures import Stopped
from model_server.landing import Landing, check_place, landing
from model_server.manifests import needed_files, problems, write_manifest
from shared import tasks
from shared.artifacts import CACHE
from shared.errors import ConfigurationError, Failure
from shared.manifest import MANIFEST, Preprocess, read_bundle
from shared.service import Service
from shared.settings import Settings
from shared.tensors import TensorSpec
from shared.validation import parse_json

_PRECISIONS = {"half": half, "half-weights": half, "int8": int8}
_NOTES = {"half": "float16", "half-weights": "float16 weights", "int8": "int8"}
_LEGAL = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")


def convert(folder: Path, target: Path, wishes: Wishes) -> tuple[str, bool]:
    """Writes the converted bundle to `target` and gives the report, and whether the result is good enough: only then,
    or where it is to be kept anyway, is it written. Raises Stopped."""
    _check(wishes)
    check_place(target, MANIFEST, replace=wishes.replace)
    photos = pictures(wishes.pictures)
    with landing(target.resolve()) as place, TemporaryDirectory() as scratch:
        check_place(target, MANIFEST, replace=wishes.replace)  # another command may have written it meanwhile
        shutil.rmtree(place.content, ignore_errors=True)
        try:
            report, shortcoming = _converted(folder, place, Path(scratch), wishes, photos)
            if shortcoming is None or wishes.keep_anyway:
                place.land()
        except (ConfigurationError, Failure) as error:
            raise Stopped(str(error)) from error
        finally:
            shutil.rmtree(place.content, ignore_errors=True)
    if shortcoming is None:
        return f"{report}\n{target}: written", True
    written = "written anyway" if wishes.keep_anyway else "not written; --keep-anyway does it all the same"
    return f"{report}\nnot good enough: {shortcoming}\n{target}: {written}", False


def _converted(
    folder: Path, place: Landing, scratch: Path, wishes: Wishes, photos: Sequence[Path]
) -> tuple[str, str | None]:
    """The converted bundle in the landing place, its report, and why it is not good enough."""
    source = _source(folder, scratch, wishes, photos)
    origin = find_origin(source)
    framework(BACKENDS[wishes.to])  # runs the result: its absence is better known now
    result = _stepped(source, origin, scratch)
    shutil.copytree(result.bundle.folder, place.content, ignore=shutil.ignore_patterns(CACHE))
    judged = _judged(source, origin, result, place.content)
    shutil.rmtree(place.content / CACHE, ignore_errors=True)
    return judged


def _source(folder: Path, scratch: Path, wishes: Wishes, photos: Sequence[Path]) -> Making:
    try:
        declared = parse_json((folder / MANIFEST).read_bytes().removeprefix(BOM_UTF8))
    except ValueError as error:
        raise Stopped(f"{folder / MANIFEST}: {error}") from error
    if not isinstance(declared, dict):
        raise Stopped(f"{folder / MANIFEST}: expected a JSON object")
    bundle = read_bundle(_for_module(folder, scratch / "source", declared) if wishes.module else folder)
    names = list(bundle.model.networks)
    if not names:
        parts = ", ".join(part.folder.name for part in bundle.parts.values())
        raise Stopped(f"{folder}: it has no network of its own; convert its parts: {parts}")
    name = wishes.network or names[0]
    if name not in names or (wishes.network is None and len(names) > 1):
        raise Stopped(f"--network: expected one of {', '.join(names)}, found {wishes.network or 'none'}")
    return Making(wishes, name, bundle, declared | ({"name": wishes.name} if wishes.name else {}), photos)


def _for_module(folder: Path, place: Path, declared: redeclare.Declared) -> Path:
    """The bundle as it reads while it has no artifact yet."""
    place.mkdir()
    networks = declared.get("networks")
    if isinstance(networks, dict) and all(isinstance(network, dict) for network in networks.values()):
        networks = {name: {**network, "artifacts": {}, "served_as": name} for name, network in networks.items()}
    write_manifest({**declared, "networks": networks}, place)
    if isinstance(declared.get("labels"), str):
        _copy(folder, place, declared["labels"])
    _copy_legal(folder, place)
    return place


def _stepped(source: Making, origin: Origin, scratch: Path) -> Making:
    """The bundle after every step that the wishes need."""
    making, hows = source, [origin.name]
    for at, step in enumerate(_needed(source, origin)):
        folder = scratch / f"step-{at}"
        folder.mkdir()
        made = step(making, folder)
        hows.append(made.how)
        making = _written(making, folder, made, "; ".join(hows))
    return making


def _needed(source: Making, origin: Origin) -> list[Step]:
    wishes = source.wishes
    steps: list[Step] = []
    export = ROUTES[origin.kind, wishes.to]
    if export is not None:
        steps.append(lambda making, folder: export(making, origin, folder))
    if wishes.to == "onnx":
        steps += [resize] if wishes.size or wishes.free_size else []
        steps += [fold] if wishes.fold else []
        steps += [_PRECISIONS[wishes.precision]] if wishes.precision else []
    if not steps:
        raise Stopped(f"the bundle has its {wishes.to} already, and no option asks for a change")
    return steps


def _check(wishes: Wishes) -> None:
    precision = wishes.precision
    if wishes.module and wishes.origin:
        raise Stopped("--module and --from: expected one of them")
    graph = [("--free-size", wishes.free_size), ("--size", wishes.size), (f"--{precision}", precision)]
    for option, wanted in graph:
        if wanted and wishes.to != "onnx":
            raise Stopped(f"{option} is for --to onnx: convert to that")
    if wishes.fold and wishes.to not in ("onnx", "torchscript"):
        raise Stopped("--fold-normalisation is for --to onnx and torchscript")
    if (wishes.layout or wishes.colour) and not (wishes.fold and wishes.to == "onnx"):
        raise Stopped("--layout and --colour go with --fold-normalisation and --to onnx")
    if wishes.size and wishes.free_size:
        raise Stopped("--size and --free-size: expected one of them")
    if wishes.calibration and precision != "int8":
        raise Stopped("--calibration goes with --int8")
    if precision == "int8" and not wishes.calibration:
        raise Stopped("--int8 needs --calibration FOLDER, with pictures like those that the model will see")


def _written(making: Making, folder: Path, made: Made, source: str) -> Making:
    """The step's folder made a complete bundle."""
    artifact = redeclare.artifact(folder, made.file, source)
    backend = BACKENDS[making.wishes.to]
    declared = redeclare.with_artifact(made.declared, making.network, backend, artifact)
    before = making.bundle.folder
    write_manifest(declared, folder)
    for file in needed_files(read_bundle(folder).model):
        if not (folder / file).exists():
            _copy(before, folder, file)
    _copy_legal(before, folder)
    return Making(making.wishes, making.network, read_bundle(folder), declared, making.pictures)


def _copy(before: Path, folder: Path, file: str) -> None:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(before / file, folder / file)


def _copy_legal(before: Path, folder: Path) -> None:
    for pattern in _LEGAL:
        for path in before.glob(pattern):
            if path.is_file():
                _copy(before, folder, path.name)


def _judged(source: Making, origin: Origin, result: Making, content: Path) -> tuple[str, str | None]:
    """The report on the bundle in `content`, and why it is not good enough; what it has cost is written into it."""
    for problem in [*problems(content), *_unservable(content, BACKENDS[source.wishes.to])]:
        raise Stopped(problem)
    wishes = source.wishes
    tolerance = _tolerance(source)
    reference, bundle = _reference(source, origin), read_bundle(content)
    fidelity = compared(reference, side(bundle), source.network, source.pictures, tolerance)
    if wishes.precision:
        _note(result, content, fidelity, _NOTES[wishes.precision])
    before = _megabytes(source, origin.backend) if origin.backend else "a module"
    after = _megabytes(result, BACKENDS[wishes.to])
    return f"{fidelity.text()}\nfile: source {before}, result {after}", fidelity.shortcoming(tolerance)


def _megabytes(making: Making, backend: str) -> str:
    files = making.spec.artifacts[backend].files
    return f"{sum((making.bundle.folder / file.file).stat().st_size for file in files) / 1e6:.2f} MB"


def _tolerance(source: Making) -> Tolerance:
    wishes = source.wishes
    resized = wishes.size is not None and not _takes(source.picture, source.preprocess, wishes.size)
    usual = LOSSY if resized else wishes.tolerance
    score = usual.score if wishes.tolerance_score is None else wishes.tolerance_score
    px = usual.px if wishes.tolerance_px is None else wishes.tolerance_px
    return Tolerance(score, px, usual.matched)


def _unservable(folder: Path, backend: str) -> list[str]:
    """Why a server could not serve the bundle."""
    settings = msgspec.structs.replace(Settings(), models=str(folder), backend=backend)
    served = Service(settings).find(None)
    served.open(warm_up=True)
    return [served.reason] if served.reason else []


def _reference(source: Making, origin: Origin) -> Side:
    """The source, fed at the new size where it can take that."""
    bundle, size = source.bundle, source.wishes.size
    if size is not None and _takes(source.picture, source.preprocess, size):
        preprocess = msgspec.structs.replace(source.preprocess, size=size)
        bundle = msgspec.structs.replace(bundle, model=msgspec.structs.replace(bundle.model, preprocess=preprocess))
    others = {name: bundle.network(name) for name in bundle.model.networks if name != source.network}
    runs = {name: opened(spec, next(iter(spec.artifacts))) for name, spec in others.items()}
    return Side(tasks.build(bundle), {**runs, source.network: origin.run})


def _takes(picture: TensorSpec, preprocess: Preprocess, size: tuple[int, int]) -> bool:
    sides = [picture.shape[preprocess.layout.index(axis)] for axis in "HW"]
    return all(side in (None, wanted) for side, wanted in zip(sides, size, strict=True))


def _note(result: Making, content: Path, fidelity: Fidelity, kind: str) -> None:
    """Says in model.json what the conversion has cost."""
    (artifact,) = result.declared["networks"][result.network]["artifacts"].values()
    artifact["note"] = fidelity.note(kind)
    write_manifest(result.declared, content)
