"""A model bundle: a folder with `model.json` beside the weights, read into a typed Model."""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from shared.errors import ConfigurationError
from shared.tensors import Artifact, TensorSpec
from shared.validation import Mismatch, convert, parse_json

MANIFEST = "model.json"

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=16384)]
Channels = tuple[float, float, float]
Figure = Annotated[float, msgspec.Meta(ge=0)]
ServedName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exported graph: its tensors, the file that each backend runs, and the name that a model server has it under
    (null: the bundle's and the network's, `my-detector.detector`)."""

    inputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    artifacts: dict[str, Artifact] = {}
    served_as: ServedName | None = None


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How upright RGB pixels 0..255 become the input tensor: resized, then `(pixel * scale - mean) / std`.

    size        [height, width] of the tensor; null takes it from the network's declared shape, or from the
                picture where that is free.
    resize      stretch    both sides to `size`, the aspect changes
                letterbox  the aspect stays, the rest of `size` is `pad_value`, at `anchor`
                long-side  the long side becomes `side`, the other follows (free-size networks)
                short-side the short side becomes `side`, but the long one at most `max_side` (free-size networks)
    multiple_of free sides are padded right and bottom with `pad_value` up to a multiple of this.
    """

    size: tuple[Side, Side] | None = None
    resize: Literal["stretch", "letterbox", "long-side", "short-side"] = "stretch"
    side: Side | None = None
    max_side: Side | None = None
    multiple_of: Side = 1
    anchor: Literal["center", "top-left"] = "center"
    pad_value: tuple[int, int, int] = (114, 114, 114)
    scale: float = 1.0
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)
    layout: Literal["NCHW", "NHWC", "CHW", "HWC"] = "NCHW"
    colour: Literal["RGB", "BGR"] = "RGB"

    @property
    def normalises(self) -> bool:
        return (self.scale, self.mean, self.std) != (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What pictures of `size` [height, width] took, `concurrency` of them at once: the median of a whole prediction and
    of its networks' part, both in milliseconds of a warm process, and the most memory that the process ever had, of
    which `peak_mb` is over what its imports alone take."""

    size: tuple[Side, Side]
    ms: Figure
    infer_ms: Figure
    peak_mb: Figure
    total_mb: Figure
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 1


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most memory that one run of a network takes beside its opened self: `fixed_mb` (below zero where it grows
    late) and so many MB for each million elements of all its inputs together. No measured point lies above it."""

    fixed_mb: float
    per_million_mb: Figure


class Foreseen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the memory planner goes by, in MB beside what the imported framework holds: the most while the networks are
    opened, what they hold from then on, and what a run of each takes."""

    opening_mb: Figure
    resident_mb: Figure
    networks: dict[str, Curve]


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the bundle took in a process of its own, where it was profiled: `load_s` to open its networks with
    everything imported, `first_ms` for the first prediction; then, for each size of picture, `measured`; and the curves
    that were fitted to the memory of runs of each size."""

    backend: Text
    runtime: Text
    """The framework and its version."""
    processor: Text
    threads: Annotated[int, msgspec.Meta(ge=1)]
    load_s: Figure
    first_ms: Figure
    measured: Annotated[tuple[Measured, ...], msgspec.Meta(min_length=1)]
    memory: Foreseen | None = None


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model.json`, whole. `postprocess` is read by the family, which knows its own fields; `profile` is written by a
    command. `bundles` are others beside this one that a family puts together, by the part that they play; they bring
    their networks."""

    name: Name
    task: Text
    family: Text
    licence: Text
    source: Text
    networks: dict[str, Network] = {}
    labels: tuple[str | None, ...] | str = ()
    bundles: dict[Name, Name] = {}
    version: Name = "1"
    preprocess: Preprocess = Preprocess()
    postprocess: dict[str, Any] = {}
    profile: Profile | None = None


class NetworkSpec(msgspec.Struct, frozen=True):
    """What a backend needs to open one network: which it is, where its files lie, its tensors, and its name on a model
    server."""

    bundle: str
    version: str
    network: str
    folder: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    artifacts: Mapping[str, Artifact]
    served_as: str

    @property
    def field(self) -> str:
        """How a message names it."""
        return f"{self.bundle}: networks.{self.network}"


class Bundle(msgspec.Struct, frozen=True):
    """A Model and the folder that its files lie in; `labels` are read, by class index, null where unused; `parts` are
    the bundles that it puts together."""

    model: Model
    folder: Path
    labels: tuple[str | None, ...]
    parts: dict[str, Bundle] = {}

    @property
    def fingerprint(self) -> str:
        """Differs where two bundles of one name would answer differently, but for their weights."""
        model = self.model
        told = (model.name, model.version, model.task, model.family, model.preprocess, model.postprocess, self.labels)
        parts = [part.fingerprint for part in self.parts.values()]
        return sha256(msgspec.json.encode((*told, *parts))).hexdigest()[:16]

    @property
    def network_names(self) -> list[str]:
        """Its networks, and as `part/network` those of its parts."""
        of_parts = [f"{role}/{name}" for role, part in self.parts.items() for name in part.network_names]
        return [*self.model.networks, *of_parts]

    @property
    def specs(self) -> list[NetworkSpec]:
        """All its networks, those of its parts too."""
        return [self.network(name) for name in self.network_names]

    def network(self, name: str) -> NetworkSpec:
        """The network of a name that `network_names` has."""
        role, _, of_part = name.partition("/")
        if of_part:
            return self.parts[role].network(of_part)
        network = self.model.networks[name]
        return NetworkSpec(
            self.model.name,
            self.model.version,
            name,
            self.folder,
            network.inputs,
            network.outputs,
            network.artifacts,
            network.served_as or f"{self.model.name}.{name}",
        )


def read_bundle(folder: Path, beside: Path | None = None) -> Bundle:
    """The bundle in `folder`, whose parts lie in `beside`, by default where it lies itself. Raises ConfigurationError
    that names the field, the value and what was expected."""
    path = folder / MANIFEST
    try:
        raw = parse_json(path.read_bytes().removeprefix(BOM_UTF8))
        model = convert(raw, Model)
        _check(model, folder)
        return Bundle(model, folder, _labels(model, folder), _parts(model, folder, beside or folder.parent))
    except OSError as error:
        file = Path(error.filename or path).name
        raise ConfigurationError(f"{folder.name}: cannot read {file!r}: {error.strerror}") from error
    except (ValueError, Mismatch) as error:
        raise ConfigurationError(f"{folder.name}/{MANIFEST}: {error}") from error


def _parts(model: Model, folder: Path, place: Path) -> dict[str, Bundle]:
    """The bundles that `model`, which lies in `folder`, puts together: folders of their names in `place`."""
    parts = {}
    for role, name in model.bundles.items():
        beside = place / name
        if not (beside / MANIFEST).is_file():
            raise Mismatch(f"bundles.{role}", f"expected the bundle {name!r} beside this one, found none")
        if beside == folder or _names_parts(beside):
            raise Mismatch(f"bundles.{role}", f"expected a bundle with networks of its own, found {name!r}")
        parts[role] = read_bundle(beside)
    return parts


def _names_parts(folder: Path) -> bool:
    raw = parse_json((folder / MANIFEST).read_bytes().removeprefix(BOM_UTF8))
    return isinstance(raw, dict) and bool(raw.get("bundles"))


def _labels(model: Model, folder: Path) -> tuple[str | None, ...]:
    if isinstance(model.labels, tuple):
        return model.labels
    lines = _inside(folder, model.labels, "labels").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() or None for line in lines)


def _check(model: Model, folder: Path) -> None:
    """What the types alone cannot say."""
    if bool(model.networks) == bool(model.bundles):
        raise Mismatch("networks", "expected either networks, or bundles that have some")
    for name, network in model.networks.items():
        where = f"networks.{name}"
        if not network.artifacts and not network.served_as:
            raise Mismatch(f"{where}.artifacts", "expected a backend's file, or served_as, found neither")
        for backend, artifact in network.artifacts.items():
            field = f"{where}.artifacts.{backend}"
            for file in artifact.files:
                _inside(folder, file.file, f"{field}.file")
                if len(file.sha256) != 64 or not set(file.sha256) <= set("0123456789abcdef"):
                    raise Mismatch(f"{field}.sha256", f"expected 64 lower-case hex digits, found {file.sha256!r}")
        for kind, specs in (("inputs", network.inputs), ("outputs", network.outputs)):
            names = [spec.name for spec in specs]
            if len(set(names)) != len(names):
                raise Mismatch(f"{where}.{kind}", f"expected distinct names, found {names}")
    _check_preprocess(model.preprocess)


def _check_preprocess(preprocess: Preprocess) -> None:
    numbers = (preprocess.scale, *preprocess.mean, *preprocess.std)
    if not all(map(math.isfinite, numbers)) or 0.0 in preprocess.std:
        raise Mismatch("preprocess", f"expected finite scale and mean, and std without a zero, found {numbers}")
    if not all(0 <= value <= 255 for value in preprocess.pad_value):
        raise Mismatch("preprocess.pad_value", f"expected three values 0..255, found {preprocess.pad_value}")
    if preprocess.resize in ("long-side", "short-side") and preprocess.side is None:
        raise Mismatch("preprocess.side", f"expected a number of pixels, resize {preprocess.resize!r} needs it")
    if preprocess.resize == "short-side" and preprocess.max_side is None:
        # Without it a needle of 1 x 20000 pixels would become a tensor of 800 x 16 million.
        raise Mismatch("preprocess.max_side", "expected a number of pixels, resize 'short-side' needs it")


def _inside(folder: Path, file: str, field: str) -> Path:
    """`file` under `folder`; a path that would leave the bundle is refused."""
    path = Path(file)
    if not file or path.is_absolute() or ".." in path.parts or not file.isprintable():
        raise Mismatch(field, f"expected a path inside the bundle, found {file!r}")
    return folder / path
