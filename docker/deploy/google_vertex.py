"""Vertex AI: an image as a model, on an endpoint. A deployed model without traffic is the slot: Vertex AI has it ready
before it says so."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from docker.deploy.commands import Cloud, Handed, Word, handed_json, pairs
from docker.deploy.declared import Declared
from docker.deploy.smoke import Smoke
from docker.deploy.undoing import Undo
from model_server.failures import Stopped


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is wanted."""

    name: str
    region: str
    image: str
    machine: str
    least: int
    most: int
    gpu: str | None = None
    artifacts: str | None = None
    account: str | None = None

    @property
    def size(self) -> tuple[str, ...]:
        gpu = ("--accelerator", f"type={self.gpu},count=1") if self.gpu else ()
        account = ("--service-account", self.account) if self.account else ()
        bounds = ("--min-replica-count", str(self.least), "--max-replica-count", str(self.most))
        return ("--machine-type", self.machine, *bounds, *gpu, *account)


@dataclass(frozen=True, slots=True)
class _Flow:
    wanted: Endpoint
    cloud: Cloud
    settings: Declared
    test: Smoke

    @property
    def region(self) -> tuple[str, str]:
        return ("--region", self.wanted.region)

    def deploy(self) -> str:
        name = self.wanted.name
        model = self._upload(self._find("models", {"name": f"<model of {name}>"}))
        old_endpoint = {"name": f"<endpoint of {name}>", "trafficSplit": {"<old>": 100}}
        found = self._find("endpoints", old_endpoint)
        endpoint = found or self.cloud.do(
            "ai", "endpoints", "create", "--display-name", name, *self.region, expected={"name": old_endpoint["name"]}
        )
        self._replace(_id(endpoint), endpoint.get("trafficSplit") or {}, model)
        return str(endpoint["name"])

    def _find(self, kind: str, expected: Mapping[str, object]) -> Any | None:
        listing = ("ai", kind, "list", *self.region, "--filter", f"displayName={self.wanted.name}")
        found = self.cloud.find(*listing, expected=expected)
        if len(found) > 1:
            raise Stopped(
                f"there are {len(found)} {kind} called {self.wanted.name} in {self.wanted.region}; expected one"
            )
        return found[0] if found else None

    def _upload(self, parent: Any | None) -> str:
        """The new version of the model, as ID@VERSION."""
        wanted = self.wanted
        words: list[Word] = ["--display-name", wanted.name, *self.region, "--container-image-uri", wanted.image]
        words += ["--container-ports", "8080", "--container-predict-route", "/predict"]
        words += ["--container-health-route", "/ready"]  # a model that is not loaded yet is not healthy
        words += ["--parent-model", _id(parent)] if parent else []
        words += ["--artifact-uri", wanted.artifacts] if wanted.artifacts else []
        if self.settings.values:
            values, shown = dict(self.settings.values), self.settings.shown
            flags = handed_json("flags.json", {_ENV_VARS: values}, {_ENV_VARS: shown})
            words += ["--flags-file", flags]
        made = self.cloud.do(
            "ai", "models", "upload", *words, expected={"model": "<model>", "modelVersionId": "<version>"}
        )
        return f"{str(made['model']).rsplit('/', 1)[-1]}@{made['modelVersionId']}"

    def _replace(self, endpoint: str, old: Mapping[str, int], model: str) -> None:
        """A deployed model beside the old ones: given the traffic once it is ready, tested; then the old ones go."""
        new = str(int(time.time()))  # up to ten digits, as Vertex AI wants them
        kept = {name: int(percent) for name, percent in old.items()}
        what = ("--model", model, "--display-name", self.wanted.name, "--deployed-model-id", new, *self.wanted.size)
        split = _split({"0": 0, **kept} if kept else {"0": 100})
        with Undo() as undo:  # from before the long wait: an interruption does not end what Vertex AI has begun
            undo.step(f"the deployed model {new}", lambda: self._undeploy(endpoint, new))
            self.cloud.do("ai", "endpoints", "deploy-model", endpoint, *self.region, *what, "--traffic-split", split)
            if kept:
                undo.step("the traffic", lambda: self._give(endpoint, kept))
                self._give(endpoint, {new: 100})
            self._smoke(endpoint)
        for deployed in kept:
            self._undeploy(endpoint, deployed)

    def _give(self, endpoint: str, split: Mapping[str, int]) -> None:
        self.cloud.do("ai", "endpoints", "update", endpoint, *self.region, "--traffic-split", _split(split))

    def _undeploy(self, endpoint: str, deployed: str) -> None:
        which = (endpoint, *self.region, "--deployed-model-id", deployed)
        self.cloud.do("ai", "endpoints", "undeploy-model", *which)

    def _smoke(self, endpoint: str) -> None:
        """One picture through Vertex AI's own door."""
        picture = base64.b64encode(self.test.picture.read_bytes()).decode()
        request = Handed("request.json", json.dumps({"instances": [{"image_base64": picture}]}), _REQUEST)
        words = ("ai", "endpoints", "predict", endpoint, *self.region, "--json-request", request)
        answer = self.cloud.do(*words, expected={"predictions": [{"predictions": [{}]}]})
        replies = answer.get("predictions") if isinstance(answer, dict) else answer
        if not isinstance(replies, list) or len(replies) != 1:
            raise Stopped(f"endpoint {endpoint}: expected one prediction, found {json.dumps(answer)[:500]}")
        if not self.cloud.dry:
            self.test.judge(f"endpoint {endpoint}", replies[0])


_ENV_VARS = "--container-env-vars"
_REQUEST = '{"instances": [{"image_base64": "…"}]}'


def deploy(wanted: Endpoint, cloud: Cloud, settings: Declared, test: Smoke) -> str:
    """The name of the endpoint. Raises Stopped, with the traffic where it was and the new model undeployed; its
    version stays in the registry, and a new endpoint stays."""
    return _Flow(wanted, cloud, settings, test).deploy()


def _id(resource: Any) -> str:
    return str(resource["name"]).rsplit("/", 1)[-1]


def _split(percents: Mapping[str, int]) -> str:
    return ",".join(pairs({name: str(percent) for name, percent in percents.items()}))
