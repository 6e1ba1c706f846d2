"""What function apps stand on: the resource group, the storage account, the identity that may use it, the plan."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from docker.deploy.commands import Cloud

# What the Functions host needs of its own storage where it comes by its identity.
_ROLE = "Storage Blob Data Owner"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user-assigned managed identity."""

    id: str
    client_id: str


def storage_name(group: str, name: str) -> str:
    """The name of the storage account: 3 to 24 small letters and digits, nobody else's in the world."""
    stem = re.sub(r"[^a-z0-9]", "", name.lower())[:16]
    return stem + hashlib.sha256(f"{group}/{name}".encode()).hexdigest()[:8]


def ensure_group(cloud: Cloud, group: str, region: str) -> None:
    if not cloud.find("group", "list", "--query", f"[?name=='{group}']", expected={"name": group}):
        cloud.do("group", "create", "--name", group, "--location", region)


def ensure_storage(cloud: Cloud, group: str, region: str, name: str, shared_keys: bool) -> str:
    """The id of the storage account. Without `shared_keys` identities alone may use a new one."""
    expected = {"name": name, "id": f"<id of {name}>"}
    listing = ("storage", "account", "list", "--resource-group", group, "--query", f"[?name=='{name}']")
    found = cloud.find(*listing, expected=expected)
    if found:
        return str(found[0]["id"])
    words = ("--sku", "Standard_LRS", "--min-tls-version", "TLS1_2", "--allow-blob-public-access", "false")
    keys = ("--allow-shared-key-access", "true" if shared_keys else "false")
    made = cloud.do(
        "storage", "account", "create", "--resource-group", group, "--name", name, "--location", region, *words, *keys,
        expected=expected,
    )  # fmt: skip
    return str(made["id"])


def ensure_identity(cloud: Cloud, group: str, name: str, storage: str) -> Identity:
    """The identity `name`, with the right to use the storage account of the id `storage`."""
    expected = {
        "id": f"<id of {name}>",
        "clientId": f"<client id of {name}>",
        "principalId": f"<principal id of {name}>",
    }
    listing = ("identity", "list", "--resource-group", group, "--query", f"[?name=='{name}']")
    found = cloud.find(*listing, expected=expected)
    made = (
        found[0]
        if found
        else cloud.do("identity", "create", "--resource-group", group, "--name", name, expected=expected)
    )
    who = ("--assignee-object-id", str(made["principalId"]))
    what = ("--role", _ROLE, "--scope", storage)
    if not cloud.find("role", "assignment", "list", *who, *what, expected={"role": _ROLE}):
        cloud.do("role", "assignment", "create", *who, "--assignee-principal-type", "ServicePrincipal", *what)
    return Identity(str(made["id"]), str(made["clientId"]))


def ensure_plan(cloud: Cloud, group: str, region: str, name: str, *, sku: str, scale: tuple[int, int]) -> None:
    """The Elastic Premium plan `name`, of this size."""
    least, most = scale
    bounds = ("--min-instances", str(max(1, least)), "--max-burst", str(most))
    words = ("--resource-group", group, "--name", name, "--sku", sku, *bounds)
    listing = ("functionapp", "plan", "list", "--resource-group", group, "--query", f"[?name=='{name}']")
    if cloud.find(*listing, expected={"name": name}):
        cloud.do("functionapp", "plan", "update", *words)
    else:
        cloud.do("functionapp", "plan", "create", *words, "--location", region, "--is-linux", "true")
