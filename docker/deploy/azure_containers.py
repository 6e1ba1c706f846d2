"""Azure Container Apps: an image that scales to zero, with a GPU where asked for. Its revisions are the slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from docker.deploy import azure_foundations as foundations
from docker.deploy.commands import Cloud, Handed, Word, pairs
from docker.deploy.declared import Declared
from docker.deploy.failures import Stopped
from docker.deploy.smoke import Smoke
from docker.deploy.undoing import Undo

# GPUs that are paid by the second and scale to zero, with the cores and the memory that come with one.
GPUS = {"t4": ("Consumption-GPU-NC8as-T4", "8", "56Gi"), "a100": ("Consumption-GPU-NC24-A100", "24", "220Gi")}


@dataclass(frozen=True, slots=True)
class ContainerApp:
    """What is wanted."""

    group: str
    name: str
    region: str
    environment: str
    image: str
    port: int
    cpu: float
    memory_mib: int
    concurrency: int
    least: int
    most: int
    gpu: str | None = None
    registry: tuple[str, str, str] | None = None
    registry_identity: str | None = None

    @property
    def size(self) -> tuple[str, ...]:
        if self.gpu:
            return ("--cpu", GPUS[self.gpu][1], "--memory", GPUS[self.gpu][2])
        return ("--cpu", f"{self.cpu:g}", "--memory", f"{self.memory_mib / 1024:g}Gi")

    @property
    def scale(self) -> tuple[str, ...]:
        return (
            *("--min-replicas", str(self.least), "--max-replicas", str(self.most)),
            *("--scale-rule-name", "http", "--scale-rule-type", "http"),
            *("--scale-rule-http-concurrency", str(self.concurrency)),
        )


@dataclass(frozen=True, slots=True)
class _Flow:
    wanted: ContainerApp
    cloud: Cloud
    settings: Declared
    test: Smoke

    @property
    def which(self) -> tuple[str, ...]:
        return ("--resource-group", self.wanted.group, "--name", self.wanted.name)

    @property
    def expected(self) -> dict[str, Any]:
        """What az says of an app, for a rehearsal."""
        name = self.wanted.name
        ingress = {"fqdn": f"<address of {name}>", "traffic": [{"revisionName": f"{name}--<old>", "weight": 100}]}
        return {
            "name": name,
            "properties": {
                "configuration": {"activeRevisionsMode": "Multiple", "ingress": ingress},
                "latestRevisionName": f"{name}--<new>",
            },
        }

    def deploy(self) -> str:
        foundations.ensure_group(self.cloud, self.wanted.group, self.wanted.region)
        self._ensure_environment()
        listing = ("containerapp", "list", "--resource-group", self.wanted.group)
        found = self.cloud.find(*listing, "--query", f"[?name=='{self.wanted.name}']", expected=self.expected)
        url = f"https://{_ingress(found[0])['fqdn']}" if found else self._create()
        if found:
            self._update(found[0], url)
        else:
            self._smoke(url)
        return url

    def _ensure_environment(self) -> None:
        wanted = self.wanted
        which = ("--resource-group", wanted.group, "--name", wanted.environment)
        listing = ("containerapp", "env", "list", "--resource-group", wanted.group)
        if not self.cloud.find(*listing, "--query", f"[?name=='{wanted.environment}']", expected={}):
            self.cloud.do("containerapp", "env", "create", *which, "--location", wanted.region)
        if not wanted.gpu:
            return
        profiles = ("containerapp", "env", "workload-profile", "list", *which)
        if not self.cloud.find(*profiles, "--query", f"[?name=='{wanted.gpu}']", expected={}):
            kind = ("--workload-profile-name", wanted.gpu, "--workload-profile-type", GPUS[wanted.gpu][0])
            self.cloud.do("containerapp", "env", "workload-profile", "add", *which, *kind)

    def _create(self) -> str:
        """The first deployment: there is nothing to go back to."""
        wanted = self.wanted
        made = self.cloud.do(
            "containerapp", "create", *self.which, "--environment", wanted.environment, "--image", wanted.image,
            "--ingress", "external", "--target-port", str(wanted.port), "--revisions-mode", "multiple",
            *wanted.size, *wanted.scale, *self._profile(), *self._registry(),
            *_list("--secrets", self._secrets()), *_list("--env-vars", self._environment()),
            expected=self.expected,
        )  # fmt: skip
        return f"https://{_ingress(made)['fqdn']}"

    def _update(self, found: Any, url: str) -> None:
        """A new revision beside the one that answers: tested by itself, given the traffic, tested again."""
        wanted, old = self.wanted, _weights(found)
        if found["properties"]["configuration"].get("activeRevisionsMode", "").lower() != "multiple":
            self.cloud.do("containerapp", "revision", "set-mode", *self.which, "--mode", "multiple")
        self._give(old, [*old, *_floating(found)])  # else the new revision would have the traffic at once
        if registry := self._registry():
            words = [_OF_REGISTRY.get(word, word) if isinstance(word, str) else word for word in registry]
            self.cloud.do("containerapp", "registry", "set", *self.which, *words)
        if self.settings.secret:
            self.cloud.do("containerapp", "secret", "set", *self.which, "--secrets", *self._secrets())
        changed = self.cloud.do(
            "containerapp", "update", *self.which, "--image", wanted.image, *wanted.size, *wanted.scale,
            *self._profile(), *_list("--set-env-vars", self._environment()),
            *_list("--remove-env-vars", self.settings.unset), expected=self.expected,
        )  # fmt: skip
        new = str(changed["properties"]["latestRevisionName"])
        if new in old:  # nothing has changed, so that az makes no revision
            self._smoke(url)
            return
        with Undo() as undo:
            undo.step(f"revision {new} is put to sleep", lambda: self._sleep(new))
            shown = self.cloud.do("containerapp", "revision", "show", *self.which, "--revision", new, expected=_SHOWN)
            self._smoke(f"https://{shown['properties']['fqdn']}")
            undo.step("the traffic", lambda: self._give(old, [*old, new]))
            self._give({new: 100}, [*old, new])
            self._smoke(url)
        for revision in old:
            self._sleep(revision)

    def _sleep(self, revision: str) -> None:
        self.cloud.do("containerapp", "revision", "deactivate", *self.which, "--revision", revision)

    def _give(self, weights: Mapping[str, int], named: Sequence[str]) -> None:
        """Gives the traffic to `weights`, and none to the others that are `named`."""
        split = pairs({name: str(weights.get(name, 0)) for name in dict.fromkeys(named)})
        self.cloud.do("containerapp", "ingress", "traffic", "set", *self.which, "--revision-weight", *split)

    def _smoke(self, url: str) -> None:
        if not self.cloud.dry:
            self.test.check(url)

    def _profile(self) -> tuple[str, ...]:
        return ("--workload-profile-name", self.wanted.gpu) if self.wanted.gpu else ()

    def _registry(self) -> tuple[Word, ...]:
        if self.wanted.registry_identity:
            server = self.wanted.image.split("/")[0]
            return ("--registry-server", server, "--registry-identity", self.wanted.registry_identity)
        if self.wanted.registry is None:
            return ()
        server, user, password = self.wanted.registry
        handed = Handed("registry-password", password, "***", before="@")
        return ("--registry-server", server, "--registry-username", user, "--registry-password", handed)

    def _secrets(self) -> list[Word]:
        """The app's secrets, each from a file: `@` and az reads the whole argument there."""
        return [
            Handed(_secret(name), f"{_secret(name)}={value}", f"{_secret(name)}=***", before="@")
            for name, value in self.settings.secret.items()
        ]

    def _environment(self) -> list[str]:
        return pairs(self.settings.plain | {name: f"secretref:{_secret(name)}" for name in self.settings.secret})


# The same options under the names that `registry set` has for them.
_OF_REGISTRY = {f"--registry-{name}": f"--{name}" for name in ("server", "username", "password", "identity")}
_SHOWN = {"properties": {"fqdn": "<address of the revision>"}}


def deploy(wanted: ContainerApp, cloud: Cloud, settings: Declared, test: Smoke) -> str:
    """The URL of the deployed app. Raises Stopped, with the traffic where it was."""
    return _Flow(wanted, cloud, settings, test).deploy()


def _secret(name: str) -> str:
    """The secret's name: small letters, digits and hyphens, 20 characters at most."""
    return name.removeprefix("THINLENS_").lower().replace("_", "-")[:20]


def _list(option: str, words: Sequence[Word]) -> tuple[Word, ...]:
    return (option, *words) if words else ()


def _ingress(app: Any) -> Any:
    ingress = app["properties"]["configuration"].get("ingress")
    if not ingress:
        raise Stopped(f"{app['name']} takes no requests from outside; expected an app with ingress")
    return ingress


def _floating(app: Any) -> list[str]:
    """`latest`, where the traffic goes to whatever revision is the latest."""
    return ["latest"] if any(one.get("latestRevision") for one in _ingress(app).get("traffic") or ()) else []


def _weights(app: Any) -> dict[str, int]:
    """The revisions that have traffic, in percent."""
    latest = app["properties"].get("latestReadyRevisionName") or app["properties"]["latestRevisionName"]
    weights: dict[str, int] = {}
    for one in _ingress(app).get("traffic") or ({"latestRevision": True, "weight": 100},):
        name = str(latest if one.get("latestRevision") else one["revisionName"])
        if one.get("weight"):
            weights[name] = weights.get(name, 0) + int(one["weight"])
    return weights
