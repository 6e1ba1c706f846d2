"""Azure Container Apps: an image that scales to zero, with a GPU where asked for. Its revisions are the slots."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from docker.deploy import azure_foundations as foundations
from docker.deploy.commands import Cloud, Handed, Word, pairs
from docker.deploy.declared import API_KEYS, Declared, unread_keys
from docker.deploy.smoke import Smoke
from docker.deploy.undoing import Undo
from model_server.failures import Stopped

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
        if found:
            return replace(self, test=self._with_kept_keys(found[0]))._update(found[0])
        url = self._create()
        self._smoke(url)
        return url

    def _with_kept_keys(self, found: Any) -> Smoke:
        """The test with the keys of an earlier deployment, which stay unless this one names or unsets them. Raises
        Stopped where they cannot be read."""
        if API_KEYS in self.settings.values or API_KEYS in self.settings.unset:
            return self.test
        kept: Mapping[str, Any] = next((one for one in _variables(found) if one["name"] == API_KEYS), {})
        if not kept.get("secretRef"):
            return self.test.with_keys(kept.get("value") or "")
        try:
            keys = self._secret_now(kept["secretRef"])
        except Stopped as error:
            raise unread_keys(self.wanted.name, error) from error
        return self.test.with_keys(keys)

    def _secret_now(self, name: str) -> str:
        shown = self.cloud.do("containerapp", "secret", "show", *self.which, "--secret-name", name)
        if not shown.get("value"):
            raise Stopped(f"secret {name}: expected its value, found a reference")
        return str(shown["value"])

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
            *_list("--secrets", _handed(self._secrets())), *_list("--env-vars", self._environment()),
            expected=self.expected,
        )  # fmt: skip
        return f"https://{_ingress(made)['fqdn']}"

    def _update(self, found: Any) -> str:
        """A new revision beside the one that answers: tested by itself, given the traffic, tested again."""
        old, url = _weights(found), f"https://{_ingress(found)['fqdn']}"
        if found["properties"]["configuration"].get("activeRevisionsMode", "").lower() != "multiple":
            self.cloud.do("containerapp", "revision", "set-mode", *self.which, "--mode", "multiple")
        self._give(old, [*old, *_floating(found)])  # else the new revision would have the traffic at once
        if registry := self._registry():
            words = [_OF_REGISTRY.get(word, word) if isinstance(word, str) else word for word in registry]
            self.cloud.do("containerapp", "registry", "set", *self.which, *words)
        with Undo() as undo:
            self._change_secrets(undo, found, old)
            new = self._revise()
            if new in old:  # nothing but secrets has changed, so that az makes no revision
                if self.settings.secret:
                    self._revision("restart", new)
                self._smoke(url)
                return url
            self._replace(undo, old, new, url)
        for revision in old:
            self._revision("deactivate", revision)
        return url

    def _change_secrets(self, undo: Undo, found: Any, old: Collection[str]) -> None:
        """Sets the secrets, which belong to the app and not to a revision; an instance reads them when it starts."""
        if not self.settings.secret:
            return
        there = {str(one["name"]) for one in found["properties"]["configuration"].get("secrets") or ()}
        before = {name: self._secret_now(name) for name in self._secrets() if name in there}
        if before:
            for revision in old:
                undo.step(f"revision {revision} is started again", partial(self._revision, "restart", revision))
            undo.step("the secrets", lambda: self._set_secrets(before))
        self._set_secrets(self._secrets())

    def _revise(self) -> str:
        """The revision that is as it should be: a new one, or that of an earlier deployment of the same."""
        wanted = self.wanted
        changed = self.cloud.do(
            "containerapp", "update", *self.which, "--image", wanted.image, *wanted.size, *wanted.scale,
            *self._profile(), *_list("--set-env-vars", self._environment()),
            *_list("--remove-env-vars", self.settings.unset), expected=self.expected,
        )  # fmt: skip
        return str(changed["properties"]["latestRevisionName"])

    def _replace(self, undo: Undo, old: Mapping[str, int], new: str, url: str) -> None:
        undo.step(f"revision {new} is put to sleep", lambda: self._revision("deactivate", new))
        shown = self._revision("show", new)["properties"]
        if not shown.get("active", True):  # a deployment of the same has failed, and put it to sleep
            self._revision("activate", new)
        self._smoke(f"https://{shown['fqdn']}")
        undo.step("the traffic", lambda: self._give(old, [*old, new]))
        self._give({new: 100}, [*old, new])
        self._smoke(url)

    def _revision(self, action: str, revision: str) -> Any:
        return self.cloud.do("containerapp", "revision", action, *self.which, "--revision", revision, expected=_SHOWN)

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

    def _secrets(self) -> dict[str, str]:
        return {_secret(name): value for name, value in self.settings.secret.items()}

    def _set_secrets(self, values: Mapping[str, str]) -> None:
        self.cloud.do("containerapp", "secret", "set", *self.which, "--secrets", *_handed(values))

    def _environment(self) -> list[str]:
        return pairs(self.settings.plain | {name: f"secretref:{_secret(name)}" for name in self.settings.secret})


# The same options under the names that `registry set` has for them.
_OF_REGISTRY = {f"--registry-{name}": f"--{name}" for name in ("server", "username", "password", "identity")}
_SHOWN = {"properties": {"fqdn": "<address of the revision>"}}


def deploy(wanted: ContainerApp, cloud: Cloud, settings: Declared, test: Smoke) -> str:
    """The URL of the deployed app. Raises Stopped, with the traffic and the secrets as they were; the mode, and what
    the next revision starts from, stay changed."""
    return _Flow(wanted, cloud, settings, test).deploy()


def _secret(name: str) -> str:
    """The secret's name: small letters, digits and hyphens, 20 characters at most."""
    return name.removeprefix("THINLENS_").lower().replace("_", "-")[:20]


def _handed(secrets: Mapping[str, str]) -> list[Word]:
    """Secrets by their names, each in a file: `@`, and az reads the whole argument there."""
    return [Handed(name, f"{name}={value}", f"{name}=***", "@", (value,)) for name, value in secrets.items()]


def _variables(app: Any) -> Sequence[Any]:
    """What the latest revision has in its environment."""
    (container, *_) = app["properties"].get("template", {}).get("containers") or [{}]
    variables: Sequence[Any] = container.get("env") or ()
    return variables


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
