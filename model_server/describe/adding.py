"""`describe --add-to`: another file of the same network into its bundle, where it has the tensors that are declared."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from model_server.describe import kinds
from model_server.failures import Stopped
from model_server.manifests import json_text
from shared.backends import EMBEDDED, connect
from shared.errors import ConfigurationError, Failure
from shared.local import LocalPredictor
from shared.manifest import MANIFEST, Bundle, read_bundle
from shared.settings import Settings
from shared.tensors import Artifact
from shared.validation import parse_json


class Addition(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says beside the file and the bundle's folder."""

    network: str | None = None
    signature: str | None = None
    replace: bool = False


def add(path: Path, folder: Path, addition: Addition) -> str:
    """Adds the file to the model.json in `folder`, once it has been opened and run as a server would, and says so.

    Raises Stopped that says what differs from what model.json declares, and for a file outside `folder`.
    """
    file, backend = kinds.find(path)
    bundle = read_bundle(folder)
    name = _network(bundle, addition.network)
    before = bundle.model.networks[name].artifacts.get(backend)
    artifact = kinds.artifact(file, folder, addition.signature)
    if before is not None and not addition.replace:
        raise Stopped(
            f"{folder / MANIFEST}: {name} has {before.file} for {backend}; --replace puts this one in its place"
        )
    _try(_with(bundle, name, backend, msgspec.convert(artifact, Artifact)), name, backend)
    _write(folder, name, backend, artifact)
    return (
        f"{folder}: {artifact['file']} is what {backend} runs; its tensors are as declared, and "
        f"`parity {folder} --backends {','.join([*bundle.model.networks[name].artifacts, backend])}` compares answers"
    )


def _network(bundle: Bundle, wanted: str | None) -> str:
    known = list(bundle.model.networks)
    if wanted in known:
        return wanted
    if wanted is None and len(known) == 1:
        return known[0]
    raise Stopped(f"--network: expected one of {', '.join(known)}, found {wanted or 'none'}")


def _with(bundle: Bundle, name: str, backend: str, artifact: Artifact) -> Bundle:
    network = bundle.model.networks[name]
    changed = msgspec.structs.replace(network, artifacts={**network.artifacts, backend: artifact})
    networks = {**bundle.model.networks, name: changed}
    return msgspec.structs.replace(bundle, model=msgspec.structs.replace(bundle.model, networks=networks))


def _try(bundle: Bundle, name: str, backend: str) -> None:
    """Opens the network, and where each of the bundle's has a file for the backend, runs them. Raises Stopped."""
    settings = msgspec.structs.replace(Settings.load(), backend=backend)
    try:
        connected = connect(backend, settings)
    except ConfigurationError as error:
        if isinstance(error.__cause__, ImportError):
            missing = error.__cause__.name
            raise Stopped(f"adding this file needs {missing}: pip install {EMBEDDED[backend][1]}") from error
        raise
    try:
        connected.open(bundle.network(name)).close()
        if all(backend in network.artifacts for network in bundle.model.networks.values()):
            predictor = LocalPredictor(bundle, lambda: connected, max_pixels=settings.max_pixels)
            predictor.open(warm_up=True)
    except (ConfigurationError, Failure) as error:
        raise Stopped(f"not added: {error}") from error


def _write(folder: Path, name: str, backend: str, artifact: dict[str, Any]) -> None:
    path = folder / MANIFEST
    declared = deepcopy(parse_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf")))
    declared["networks"][name].setdefault("artifacts", {})[backend] = artifact
    part = path.with_name(f"{MANIFEST}-{uuid4().hex}.part")
    part.write_text(json_text(declared) + "\n", encoding="utf-8", newline="\n")
    part.replace(path)
