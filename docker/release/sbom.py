"""What a package is made of, as CycloneDX."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_supported_id
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from docker.release.checkout import Checkout
from docker.release.contents import Contents
from docker.release.licences import Licence
from docker.release.packages import Installed
from docker.release.parts import Part
from model_server.failures import Stopped
from shared.manifest import Bundle


def sbom(stem: str, version: str, checkout: Checkout, contents: Contents) -> str:
    """CycloneDX 1.6 in JSON, the same for the same commit and packages. Raises Stopped where its schema refuses it."""
    under: dict[str, Licence] = {canonicalize_name(each.name): each for each in contents.licences}
    packages = [_package(each, under[each.name]) for each in contents.packages]
    parts = [*packages, *map(_model, contents.bundles)]
    own = Component(
        name="thinlens",
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=stem,
        licenses=[_licence("Apache-2.0")],
        properties=[
            Property(name="thinlens:package", value=stem),
            Property(name="thinlens:commit", value=checkout.sha),
        ],
    )
    bom = Bom(components=parts, serial_number=uuid5(NAMESPACE_URL, f"thinlens/{stem}/{checkout.sha}"))
    bom.metadata.component = own
    bom.metadata.timestamp = datetime.fromtimestamp(checkout.time, UTC)
    bom.register_dependency(own, parts)
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    _check(text, stem)
    return text


def _check(text: str, stem: str) -> None:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise Stopped(f"{stem}: the SBOM is not CycloneDX 1.6: {problem}")


def _package(package: Installed, under: Licence) -> Component:
    """The package; libraries in its wheel that have a licence of their own are parts of it."""
    purl = PackageURL("pypi", name=package.name, version=package.version)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        licenses=[_licence(under.licence)],
        hashes=[_sha256(package.wheel_sha256)],
        components=[_part(part, purl) for part in under.parts],
    )


def _part(part: Part, package: PackageURL) -> Component:
    return Component(
        name=part.name,
        version=part.version or None,
        type=ComponentType.LIBRARY,
        bom_ref=f"{package}#{part.name}",
        purl=PackageURL.from_string(part.purl) if part.purl else None,
        licenses=[_licence(part.licence)],
    )


def _model(bundle: Bundle) -> Component:
    """The bundle; its weights, where it has some, are files of it."""
    model = bundle.model
    files = {
        file.file: file.sha256
        for network in model.networks.values()
        for artifact in network.artifacts.values()
        for file in artifact.files
        if (bundle.folder / file.file).is_file()
    }
    ref = f"model:{model.name}@{model.version}"
    weights = [
        Component(name=name, type=ComponentType.FILE, bom_ref=f"{ref}/{name}", hashes=[_sha256(found)])
        for name, found in sorted(files.items())
    ]
    return Component(
        name=model.name,
        version=model.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        description=model.source,
        licenses=[_licence(model.licence)],
        components=weights,
    )


def _licence(said: str) -> DisjunctiveLicense | LicenseExpression:
    return DisjunctiveLicense(id=said) if is_supported_id(said) else LicenseExpression(value=said)


def _sha256(content: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=content)
