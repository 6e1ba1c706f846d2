"""Azure Functions: a zip package on Flex Consumption, or a package or an image on a plan that has slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from docker.deploy import azure_foundations as foundations
from docker.deploy.azure_foundations import Identity
from docker.deploy.azure_site import BY_IDENTITY, Site, url_of
from docker.deploy.commands import Cloud, Handed, Word
from docker.deploy.declared import PREFIX, Declared
from docker.deploy.package import zipped
from docker.deploy.smoke import Smoke
from docker.deploy.undoing import Undo
from model_server.failures import Stopped

# The worker takes 32 threads at most. More than are worked on, so that those who wait can be told so.
_MOST_THREADS = 32


@dataclass(frozen=True, slots=True)
class FunctionApp:
    """What is wanted."""

    group: str
    name: str
    region: str
    plan: str
    sku: str
    storage: str
    python: str
    memory_mib: int
    concurrency: int
    least: int
    most: int
    slot: str
    staging_app: bool = True
    package: Path | None = None
    image: str | None = None
    registry: tuple[str, str, str] | None = None
    previous: Path | None = None
    no_way_back: bool = False
    build: bool = True

    @property
    def host_settings(self) -> dict[str, str]:
        """What the Functions host is told: no page of its own on `/`, and how many requests it takes at once."""
        threads = min(_MOST_THREADS, max(16, 2 * self.concurrency))
        told = {"AzureWebJobsDisableHomepage": "true", "PYTHON_THREADPOOL_THREAD_COUNT": str(threads)}
        if self.plan != "flex":  # there the platform counts them itself
            told["AzureFunctionsJobHost__extensions__http__maxConcurrentRequests"] = str(self.concurrency)
        return told


def deploy(wanted: FunctionApp, cloud: Cloud, settings: Declared, test: Smoke) -> str:
    """The URL of the deployed app. Raises Stopped, with the content and the settings put back; the size of instances
    and plans, and what was made, stay."""
    with TemporaryDirectory(prefix="package-") as folder:
        if wanted.plan == "flex":
            return _Flex(wanted, cloud, settings, test, Path(folder)).deploy()
        return _Slotted(wanted, cloud, settings, test, Path(folder)).deploy()


@dataclass(frozen=True, slots=True)
class _Flow:
    wanted: FunctionApp
    cloud: Cloud
    settings: Declared
    test: Smoke
    folder: Path

    def _zip(self) -> Path:
        assert self.wanted.package is not None
        if self.cloud.dry:
            return self.wanted.package.with_suffix(".zip")
        return zipped(self.wanted.package, self.folder / "package.zip")

    def _create(self, site: Site, *words: Word) -> Any:
        """Creates the function app."""
        return self.cloud.do(
            "functionapp", "create", *site.words, "--storage-account", self.wanted.storage, "--https-only", "true",
            *words, expected=site.expected,
        )  # fmt: skip

    def _declare_as(self, site: Site, production: Mapping[str, str]) -> None:
        """Gives what is tested first the service's settings that `production` has, and those that are declared. Its own
        are of an earlier deployment: a swap would take them along."""
        kept = {name: value for name, value in _ours(production).items() if name not in self.settings.unset}
        there = [*_ours(site.settings()), *self.settings.unset]
        site.set({**kept, **self.wanted.host_settings, **self.settings.values})
        site.unset([name for name in dict.fromkeys(there) if name not in {**kept, **self.settings.values}])

    def _runtime(self) -> tuple[str, ...]:
        return ("--runtime", "python", "--runtime-version", self.wanted.python)


class _Flex(_Flow):
    """Flex Consumption has no slots. A second app of the same make, which costs nothing while nobody asks it, takes the
    package first; then the app itself does, and gets its previous package again where that fails."""

    def deploy(self) -> str:
        wanted, site = self.wanted, Site(self.cloud, self.wanted.group, self.wanted.name)
        _check_region(self.cloud, wanted.region)
        foundations.ensure_group(self.cloud, wanted.group, wanted.region)
        staging = Site(self.cloud, wanted.group, f"{wanted.name}-staging")
        found, at_staging = site.found(), staging.found() if wanted.staging_app else None
        previous = self._previous(site) if found else None
        apps = [(site, found), *([(staging, at_staging)] if wanted.staging_app else [])]
        unready = [app for app, there in apps if there is None or self._half_made(app)]
        identity = self._identity() if unready else None
        if wanted.staging_app:
            there = self._ensure(staging, at_staging, identity if staging in unready else None)
            self._declare_as(staging, site.settings() if found else {})
            self._take(staging, there)
        now = self._ensure(site, found, identity if site in unready else None)
        with Undo() as undo:
            if previous is not None:
                self._remember(undo, site, previous)
            site.declare(self.settings, wanted.host_settings)
            self._take(site, now)
        return url_of(now)

    def _half_made(self, site: Site) -> bool:
        """Whether a deployment ended between the making of this app and its being given the identity."""
        settings = site.settings()
        if BY_IDENTITY.items() <= settings.items() and "AzureWebJobsStorage" not in settings:
            return False
        by = self._storage_of(site).get("authentication") or {}
        return str(by.get("userAssignedIdentityResourceId") or "").endswith(f"/{self.wanted.name}-host")

    def _storage_of(self, site: Site) -> Any:
        """Where the app's packages lie."""
        where = {"value": f"https://{self.wanted.storage}.blob.core.windows.net/<container>"}
        shown = self.cloud.do("functionapp", "deployment", "config", "show", *site.words, expected={"storage": where})
        return shown["storage"]

    def _identity(self) -> Identity:
        """What new apps use their storage by, so that they hold no key of it."""
        wanted = self.wanted
        storage = foundations.ensure_storage(self.cloud, wanted.group, wanted.region, wanted.storage, shared_keys=False)
        return foundations.ensure_identity(self.cloud, wanted.group, f"{wanted.name}-host", storage)

    def _ensure(self, site: Site, found: Any | None, identity: Identity | None) -> Any:
        """The app with its memory, its bounds and its identity."""
        wanted = self.wanted
        size = ("--instance-memory", str(wanted.memory_mib), "--maximum-instance-count", str(wanted.most))
        if found is None:
            assert identity is not None
            found = self._new(site, size, identity)
        else:
            self.cloud.do("functionapp", "scale", "config", "set", *site.words, *size)
            always = ("--settings", f"http={wanted.least}")
            self.cloud.do("functionapp", "scale", "config", "always-ready", "set", *site.words, *always)
        at_once = ("--trigger-type", "http", "--trigger-settings", f"perInstanceConcurrency={wanted.concurrency}")
        self.cloud.do("functionapp", "scale", "config", "set", *site.words, *at_once)
        if identity is not None:
            _use_identity(site, wanted.storage, identity)
        return found

    def _new(self, site: Site, size: tuple[str, ...], identity: Identity) -> Any:
        wanted = self.wanted
        always = ("--always-ready-instances", f"http={wanted.least}") if wanted.least else ()
        by = ("--deployment-storage-auth-type", "UserAssignedIdentity", "--deployment-storage-auth-value", identity.id)
        return self._create(site, "--flexconsumption-location", wanted.region, *self._runtime(), *size, *always, *by)

    def _take(self, site: Site, found: Any) -> None:
        """Gives the app the package, and tests it."""
        site.send(self._zip(), build=True)  # Flex Consumption builds whatever it is told
        site.smoke(self.test, found)

    def _previous(self, site: Site) -> Path | None:
        """The package that is there now, to go back to; none where the first one never arrived. Raises Stopped where it
        cannot be had."""
        if self.wanted.previous or self.wanted.no_way_back:
            return self.wanted.previous
        path = self.folder / "previous.zip"
        url = f"{self._storage_of(site)['value'].rstrip('/')}/released-package.zip"
        which = ("--blob-url", url, "--auth-mode", "login")
        try:
            if not self.cloud.do("storage", "blob", "exists", *which, expected={"exists": True})["exists"]:
                return None
            self.cloud.do("storage", "blob", "download", *which, "--file", str(path))
        except Stopped as error:
            raise Stopped(
                f"{error}\nThe package that is deployed cannot be saved, so that there is no way back: name it with "
                "--previous, take the role Storage Blob Data Reader, or say --no-way-back"
            ) from error
        return path

    def _remember(self, undo: Undo, site: Site, previous: Path) -> None:
        before = site.settings()
        changed = [*self.wanted.host_settings, *self.settings.values, *self.settings.unset]
        undo.step("the settings", lambda: site.put_back(before, changed))
        undo.step(f"the previous package of {site.name}", lambda: site.send(previous, build=True))


class _Slotted(_Flow):
    """Plans with slots: the staging slot takes the new content with its settings, is tested and swapped with the app
    itself; where the app then fails the test, they are swapped again."""

    def deploy(self) -> str:
        wanted, site = self.wanted, Site(self.cloud, self.wanted.group, self.wanted.name)
        foundations.ensure_group(self.cloud, wanted.group, wanted.region)
        if wanted.plan != "consumption":
            scale = (wanted.least, wanted.most)
            foundations.ensure_plan(self.cloud, wanted.group, wanted.region, self._plan, sku=wanted.sku, scale=scale)
        slot = site.of_slot(wanted.slot)
        found = site.found() or self._new(site)
        at_slot = slot.found() or self._new_slot(slot)
        self._declare_as(slot, site.settings())
        self._fill(slot)
        slot.smoke(self.test, at_slot)
        swap = ("functionapp", "deployment", "slot", "swap", *slot.words, "--target-slot", "production")
        self.cloud.do(*swap)
        with Undo() as undo:
            undo.step(f"{wanted.slot} and production are swapped again", lambda: self.cloud.do(*swap))
            site.smoke(self.test, found)
        return url_of(found)

    @property
    def _plan(self) -> str:
        return f"{self.wanted.name}-plan"

    def _new(self, site: Site) -> Any:
        wanted = self.wanted
        foundations.ensure_storage(self.cloud, wanted.group, wanted.region, wanted.storage, shared_keys=True)
        words: tuple[Word, ...] = ("--functions-version", "4", "--os-type", "Linux")
        if wanted.plan == "consumption":
            return self._create(site, *words, *self._runtime(), "--consumption-plan-location", wanted.region)
        content = ("--image", wanted.image, *self._registry()) if wanted.image else self._runtime()
        return self._create(site, *words, "--plan", self._plan, *content)

    def _new_slot(self, slot: Site) -> Any:
        source = ("--configuration-source", self.wanted.name)
        return self.cloud.do(
            "functionapp", "deployment", "slot", "create", *slot.words, *source, expected=slot.expected
        )

    def _fill(self, slot: Site) -> None:
        if self.wanted.image:
            words = ("--image", self.wanted.image, *self._registry())
            self.cloud.do("functionapp", "config", "container", "set", *slot.words, *words)
        else:
            slot.send(self._zip(), build=self.wanted.build)

    def _registry(self) -> tuple[Word, ...]:
        """How a private registry is entered; the password goes by a file."""
        if self.wanted.registry is None:
            return ()
        server, user, password = self.wanted.registry
        handed = Handed("registry-password", password, "***", before="@")
        return ("--registry-server", server, "--registry-username", user, "--registry-password", handed)


def _use_identity(site: Site, storage: str, identity: Identity) -> None:
    """The host's own storage by identity, in the place of the key that az puts there."""
    values: Mapping[str, str] = {
        "AzureWebJobsStorage__accountName": storage,
        "AzureWebJobsStorage__clientId": identity.client_id,
        **BY_IDENTITY,
    }
    site.set(values)
    site.unset(["AzureWebJobsStorage"])


def _ours(settings: Mapping[str, str]) -> dict[str, str]:
    """Those of the service, without those of the platform."""
    return {name: value for name, value in settings.items() if name.startswith(PREFIX)}


def _check_region(cloud: Cloud, region: str) -> None:
    """Raises Stopped where Flex Consumption is not offered."""
    listed = cloud.do("functionapp", "list-flexconsumption-locations", expected=[{"name": region}])
    names = sorted(str(one["name"]).lower().replace(" ", "") for one in listed)
    if region not in names:
        raise Stopped(f"--region: Flex Consumption is not offered in {region!r}; it is in {', '.join(names)}")
