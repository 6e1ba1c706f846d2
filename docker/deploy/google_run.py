"""Cloud Run: an image, or a staged folder as a function. A revision without traffic, under a tag, is the slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docker.deploy.commands import Cloud, Word, handed_json, pairs
from docker.deploy.declared import API_KEYS, Declared, is_secret, unread_keys
from docker.deploy.google_secrets import Secrets
from docker.deploy.smoke import Smoke
from docker.deploy.undoing import Undo
from model_server.failures import Stopped

TAG = "candidate"
# Cloud Run reads the caller's token here, too, and leaves Authorization to the service's own keys.
_TOKEN_HEADER = "X-Serverless-Authorization"


@dataclass(frozen=True, slots=True)
class Service:
    """What is wanted."""

    name: str
    region: str
    cpu: float
    memory_mib: int
    concurrency: int
    least: int
    most: int
    timeout_s: int
    public: bool
    image: str | None = None
    source: Path | None = None
    python: str = "python311"
    gpu: str | None = None
    account: str | None = None
    identity_token: str | None = None

    @property
    def content(self) -> tuple[str, ...]:
        if self.image:
            return ("--image", self.image)
        return ("--source", str(self.source), "--function", "predict", "--base-image", self.python)

    @property
    def size(self) -> tuple[str, ...]:
        words = (
            *("--cpu", f"{self.cpu:g}", "--memory", f"{self.memory_mib}Mi", "--concurrency", str(self.concurrency)),
            *("--min", str(self.least), "--max-instances", str(self.most), "--timeout", str(self.timeout_s)),
            "--cpu-boost",
        )
        if self.gpu is None:
            return words
        return (*words, "--gpu", "1", "--gpu-type", self.gpu, "--no-cpu-throttling", "--no-gpu-zonal-redundancy")

    @property
    def access(self) -> tuple[str, ...]:
        account = ("--service-account", self.account) if self.account else ()
        return ("--allow-unauthenticated" if self.public else "--no-allow-unauthenticated", *account)


@dataclass(frozen=True, slots=True)
class _Flow:
    wanted: Service
    cloud: Cloud
    settings: Declared
    test: Smoke

    @property
    def which(self) -> tuple[str, ...]:
        return (self.wanted.name, "--region", self.wanted.region)

    @property
    def expected(self) -> dict[str, Any]:
        """What gcloud says of a service, for a rehearsal."""
        name, url = self.wanted.name, f"<address of {self.wanted.name}>"
        old = {"revisionName": f"{name}-<old>", "percent": 100}
        new = {"revisionName": f"{name}-<new>", "tag": TAG, "url": f"{url} ({TAG})"}
        return {"metadata": {"name": name}, "status": {"url": url, "traffic": [old, new]}}

    def deploy(self) -> str:
        listing = ("run", "services", "list", "--region", self.wanted.region)
        found = self.cloud.find(*listing, "--filter", f"metadata.name={self.wanted.name}", expected=self.expected)
        flow = replace(self, test=self._with_kept_keys(found[0])) if found else self
        old = _percents(found[0]) if found else {}
        stored = Secrets(self.cloud, self.wanted.name, self.wanted.account).versions(self.settings)
        return flow._next(old, stored) if old else flow._first(stored)

    def _with_kept_keys(self, found: Any) -> Smoke:
        """The test with the keys of an earlier deployment, which stay unless this one names or unsets them. Raises
        Stopped where they cannot be read."""
        if API_KEYS in self.settings.values or API_KEYS in self.settings.unset:
            return self.test
        kept: Mapping[str, Any] = next((one for one in _environment(found) if one["name"] == API_KEYS), {})
        place = kept.get("valueFrom", {}).get("secretKeyRef")
        if place is None:
            return self.test.with_keys(kept.get("value", ""))
        try:
            keys = self.cloud.text(
                "secrets", "versions", "access", place["key"], "--secret", place["name"], expected=""
            )
        except Stopped as error:
            raise unread_keys(self.wanted.name, error) from error
        return self.test.with_keys(keys)

    def _first(self, stored: Mapping[str, str]) -> str:
        """The first deployment: gcloud has no --no-traffic for it, and there is nothing to go back to."""
        self._deploy(stored)
        url = str(self._status()["url"])
        self._smoke(url)
        return url

    def _next(self, old: Mapping[str, int], stored: Mapping[str, str]) -> str:
        """A revision without traffic: tested under its tag, given the traffic, tested again."""
        with Undo() as undo:
            undo.step(f"the tag {TAG}", self._untag)
            self._deploy(stored, "--no-traffic", "--tag", TAG)
            status = self._status()
            self._smoke(_tagged(status))
            undo.step("the traffic", lambda: self._give(old))
            self.cloud.do("run", "services", "update-traffic", *self.which, "--to-tags", f"{TAG}=100")
            self._smoke(str(status["url"]))
        self._untag()
        return str(status["url"])

    def _deploy(self, stored: Mapping[str, str], *more: str) -> None:
        settings, words = self.settings, (*self.wanted.content, *self.wanted.size, *self.wanted.access, *more)
        given: list[Word] = []
        if settings.plain:
            flags = {"--update-env-vars": settings.plain}
            given += ["--flags-file", handed_json("env-vars.json", flags, flags)]
        if stored:
            given += ["--update-secrets", ",".join(pairs(stored))]
        given += _removal("--remove-env-vars", [name for name in settings.unset if not is_secret(name)])
        given += _removal("--remove-secrets", [name for name in settings.unset if is_secret(name)])
        self.cloud.do("run", "deploy", *self.which, *words, *given)

    def _status(self) -> Any:
        return self.cloud.do("run", "services", "describe", *self.which, expected=self.expected)["status"]

    def _give(self, percents: Mapping[str, int]) -> None:
        split = ",".join(pairs({name: str(percent) for name, percent in percents.items()}))
        self.cloud.do("run", "services", "update-traffic", *self.which, "--to-revisions", split)

    def _untag(self) -> None:
        self.cloud.do("run", "services", "update-traffic", *self.which, "--remove-tags", TAG)

    def _smoke(self, url: str) -> None:
        headers: dict[str, str] = {}
        if not self.wanted.public:
            token = self.wanted.identity_token or self.cloud.text("auth", "print-identity-token", expected="<token>")
            headers[_TOKEN_HEADER] = f"Bearer {token}"
        if not self.cloud.dry:
            replace(self.test, headers={**self.test.headers, **headers}).check(url)


def deploy(wanted: Service, cloud: Cloud, settings: Declared, test: Smoke) -> str:
    """The URL of the deployed service. Raises Stopped, with the traffic where it was; who is let in, and what the next
    revision starts from, stay changed."""
    return _Flow(wanted, cloud, settings, test).deploy()


def _removal(option: str, names: Sequence[str]) -> list[str]:
    return [option, ",".join(names)] if names else []


def _environment(service: Any) -> Sequence[Any]:
    """The variables of the latest revision."""
    (container, *_) = service.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or [{}]
    variables: Sequence[Any] = container.get("env") or ()
    return variables


def _percents(service: Any) -> dict[str, int]:
    """The revisions that have traffic."""
    percents: dict[str, int] = {}
    for one in service["status"].get("traffic") or ():
        if one.get("percent"):
            percents[str(one["revisionName"])] = percents.get(str(one["revisionName"]), 0) + int(one["percent"])
    return percents


def _tagged(status: Any) -> str:
    for one in status.get("traffic") or ():
        if one.get("tag") == TAG and one.get("url"):
            return str(one["url"])
    raise Stopped(f"gcloud does not say where the revision tagged {TAG} answers")
