"""Settings that are secrets, kept in Google's Secret Manager: a revision names the version that it was made with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from docker.deploy.commands import Cloud, Handed
from docker.deploy.declared import Declared
from model_server.failures import Stopped

_ROLE = "roles/secretmanager.secretAccessor"


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of one service, readable by the account that it runs as."""

    cloud: Cloud
    service: str
    account: str | None

    def versions(self, settings: Declared) -> dict[str, str]:
        """Where each secret setting lies, as --update-secrets wants it: SECRET:VERSION."""
        return {name: self._version(name, value) for name, value in settings.secret.items()}

    def _version(self, setting: str, value: str) -> str:
        secret = f"{self.service}-{setting.removeprefix('THINLENS_').lower().replace('_', '-')}"
        expected = {"name": f"projects/<project>/secrets/{secret}"}
        listing = ("secrets", "list", "--filter", f"name:{secret}")
        found = [one for one in self.cloud.find(*listing, expected=expected) if one["name"].endswith(f"/{secret}")]
        if not found:
            self.cloud.do("secrets", "create", secret, "--replication-policy", "automatic")
        self._let_in(secret)
        if found and self._current(secret) == value:
            made = self.cloud.do(
                "secrets", "versions", "describe", "latest", "--secret", secret, expected=_made(secret)
            )
        else:
            handed = Handed(secret, value, "***")
            made = self.cloud.do("secrets", "versions", "add", secret, "--data-file", handed, expected=_made(secret))
        return f"{secret}:{str(made['name']).rsplit('/', 1)[-1]}"

    def _current(self, secret: str) -> str | None:
        """The value that is there; nothing where there is none, or where it may not be read."""
        try:
            return self.cloud.text("secrets", "versions", "access", "latest", "--secret", secret, expected="")
        except Stopped:
            return None

    def _let_in(self, secret: str) -> None:
        member = f"serviceAccount:{self.account or self._default_account()}"
        self.cloud.do("secrets", "add-iam-policy-binding", secret, "--member", member, "--role", _ROLE)

    def _default_account(self) -> str:
        """The account that Cloud Run takes where none is named."""
        project = self.cloud.text("config", "get-value", "project", expected="<project>")
        number: Any = self.cloud.do("projects", "describe", project, expected={"projectNumber": "<number>"})
        return f"{number['projectNumber']}-compute@developer.gserviceaccount.com"


def _made(secret: str) -> dict[str, str]:
    return {"name": f"projects/<project>/secrets/{secret}/versions/<version>"}
