"""What others made that lies in a package, and whether it may."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from docker.release.licences import Licence, allows, check_permissive, read_licences
from docker.release.packages import Installed
from model_server.failures import Stopped
from shared.manifest import Bundle, read_bundle


class Contents(NamedTuple):
    """Packages, the licence of each, and models."""

    packages: tuple[Installed, ...]
    licences: tuple[Licence, ...]
    bundles: tuple[Bundle, ...]


def read_contents(app: Path, site: Path, installed: list[Installed]) -> Contents:
    """Those of the function app `app`, whose packages lie in `site`. Raises Stopped where one may not be shipped."""
    folders = sorted(path.parent for path in (app / "model_server" / "models").glob("*/model.json"))
    found = Contents(tuple(installed), tuple(read_licences(site)), tuple(read_bundle(folder) for folder in folders))
    check_permissive(found.licences)
    for bundle in found.bundles:
        if not allows(bundle.model.licence):
            raise Stopped(f"not to be shipped: the model {bundle.model.name} is under {bundle.model.licence}")
    return found
