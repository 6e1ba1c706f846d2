"""One function app, or one slot of it: its settings, its content, its address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docker.deploy.commands import HIDDEN, Cloud, handed_json
from docker.deploy.declared import API_KEYS, Declared, is_secret
from docker.deploy.smoke import Smoke
from model_server.failures import Stopped

BY_IDENTITY = {"AzureWebJobsStorage__credential": "managedidentity"}
_AUTH_LEVEL = "THINLENS_AZURE_AUTH_LEVEL"


@dataclass(frozen=True, slots=True)
class Site:
    """A function app, or its slot."""

    cloud: Cloud
    group: str
    name: str
    slot: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """How az is told which one."""
        return ("--resource-group", self.group, "--name", self.name, *(("--slot", self.slot) if self.slot else ()))

    def of_slot(self, slot: str) -> Site:
        return replace(self, slot=slot)

    def found(self) -> Any | None:
        """What az knows of it; nothing where there is none."""
        if self.slot:
            listing: Sequence[str] = ("functionapp", "deployment", "slot", "list", "--name", self.name)
        else:
            listing = ("functionapp", "list")
        name = self.slot or self.name
        sites = self.cloud.find(
            *listing, "--resource-group", self.group, "--query", f"[?name=='{name}']", expected=self.expected
        )
        return sites[0] if sites else None

    @property
    def expected(self) -> dict[str, str]:
        label = f"{self.name}-{self.slot}" if self.slot else self.name
        return {"name": self.slot or self.name, "defaultHostName": f"{label}.azurewebsites.net"}

    def set(self, values: Mapping[str, str]) -> None:
        """Sets app settings; the host restarts."""
        shown = {name: HIDDEN if is_secret(name) else value for name, value in values.items()}
        secrets = [value for name, value in values.items() if is_secret(name)]
        handed = handed_json("settings.json", dict(values), shown, "@", secrets)
        self.cloud.do("functionapp", "config", "appsettings", "set", *self.words, "--settings", handed)

    def unset(self, names: Sequence[str]) -> None:
        if names:
            self.cloud.do("functionapp", "config", "appsettings", "delete", *self.words, "--setting-names", *names)

    def declare(self, settings: Declared, more: Mapping[str, str]) -> None:
        """Makes the settings those that are declared."""
        self.set({**more, **settings.values})
        self.unset(settings.unset)

    def settings(self) -> dict[str, str]:
        """The app settings as they are; some are secrets."""
        expected = [{"name": name, "value": value} for name, value in BY_IDENTITY.items()]
        listed = self.cloud.do("functionapp", "config", "appsettings", "list", *self.words, expected=expected)
        return {str(one["name"]): str(one["value"]) for one in listed or ()}

    def put_back(self, before: Mapping[str, str], changed: Sequence[str]) -> None:
        """Gives the settings `changed` the values that they had."""
        self.set({name: before[name] for name in changed if name in before})
        self.unset([name for name in changed if name not in before])

    def send(self, package: Path, build: bool) -> None:
        """Deploys the zip file; with `build` the platform installs its requirements."""
        self.cloud.do(
            "functionapp", "deployment", "source", "config-zip", *self.words,
            "--src", str(package), "--build-remote", "true" if build else "false", "--timeout", "1800",
        )  # fmt: skip

    def smoke(self, test: Smoke, found: Any) -> None:
        """Tests it where it answers by itself, with the keys that its settings ask for. Raises Stopped."""
        url = url_of(found)
        if self.cloud.dry:
            return
        settings = self.settings()  # keys of an earlier deployment among them
        level = settings.get(_AUTH_LEVEL, "anonymous")
        keys = {} if level == "anonymous" else {"x-functions-key": self._key(level)}
        replace(test, headers={**test.headers, **keys}).with_keys(settings.get(API_KEYS, "")).check(url)

    def _key(self, level: str) -> str:
        """The key that lets one in at this level of Azure's own."""
        listed = self.cloud.do("functionapp", "keys", "list", *self.words)
        key = listed["masterKey"] if level == "admin" else (listed.get("functionKeys") or {}).get("default")
        return str(key or listed["masterKey"])


def url_of(found: Any) -> str:
    """Where it answers. Raises Stopped where az does not say."""
    host = found.get("defaultHostName") or found.get("properties", {}).get("defaultHostName")
    if not host:
        raise Stopped(f"{found.get('name')}: az does not say where it answers")
    return f"https://{host}"
