"""What `az` and `gcloud` of tests/fake_clouds.py run: fake_clouds_tool.py PROGRAM FOLDER WORD…

A process for every call: it imports little.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    State = dict[str, Any]


def options_of(words: list[str]) -> dict[str, list[str]]:
    """Each option's words."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, sign, value = word.partition("=")
            found[name] = [value] if sign else []
        elif name:
            found[name].append(word)
    return found


def az(words: list[str], options: dict[str, list[str]], state: State) -> Any:
    """What az answers."""
    verb = " ".join(words[: next((i for i, word in enumerate(words) if word.startswith("--")), len(words))])
    name, slot = (options.get(key, [""])[0] for key in ("--name", "--slot"))
    things: dict[str, Any] = state.setdefault("things", {})
    host = f"{state['address']}/{f'{name}-{slot}' if slot else name}"
    match verb.split():
        case ["functionapp", "list-flexconsumption-locations"]:
            return [{"name": "westeurope"}, {"name": "North Europe"}]
        case ["functionapp", "config", "appsettings", action]:
            return _settings(action, options, state.setdefault("settings", {}).setdefault(host, {}))
        case ["functionapp", "deployment", "config" | "source" | "slot", "show" | "config-zip" | "swap" as action]:
            return _deployment(action, name, host, state)
        case ["functionapp", "keys", "list"]:
            return {"masterKey": "master-key", "functionKeys": {"default": "function-key"}}
        case ["storage", "blob", action]:
            if action == "download":
                Path(options["--file"][0]).write_text("the previous package")
            return {"exists": options["--blob-url"][0].split("/")[-2] in state.get("packages", [])}
        case ["containerapp", *action] if action[0] not in ("list", "env"):
            return _container_app(action, name, options, state)
        case ["containerapp", "list"]:
            return list(state.get("apps", {}).values())
        case [*kind, "list"]:
            match = re.search(r"name=='(.+)'", options.get("--query", [""])[0])
            found = things.get(" ".join(kind), [])
            return [one for one in found if match is None or one["name"] == match[1]]
        case [*kind, "create" | "add"]:
            name = (options.get("--workload-profile-name") or [slot or name])[0]
            if kind[0] == "functionapp":  # a slot is made as the app is
                made_as = state.setdefault("settings", {}).get(host.removesuffix(f"-{slot}"))
                state["settings"][host] = dict(made_as or {"AzureWebJobsStorage": "a key"})
            made = {"name": name, "id": f"/id/{name}", "clientId": "client", "principalId": "principal"}
            things.setdefault(" ".join(kind), []).append(made | {"defaultHostName": host})
            return things[" ".join(kind)][-1]
    return {"name": "account"}


def _deployment(action: str, name: str, host: str, state: State) -> Any:
    if action == "config-zip":
        state.setdefault("packages", []).append(name)
    if action == "swap":
        state["swaps"] = state.get("swaps", 0) + 1
        settings, production = state["settings"], f"{state['address']}/{name}"
        settings[host], settings[production] = settings[production], settings[host]
    mine = f"/id/{name.removesuffix('-staging')}-host"
    by = {"userAssignedIdentityResourceId": state.get("identity", mine)}
    return {"storage": {"value": f"https://store.blob.core.windows.net/{name}", "authentication": by}}


def _settings(action: str, options: dict[str, list[str]], settings: dict[str, str]) -> Any:
    if action == "set":
        settings.update(json.loads(Path(options["--settings"][0].removeprefix("@")).read_text()))
    if action == "delete":
        for name in options["--setting-names"]:
            settings.pop(name, None)
    return [{"name": name, "value": value} for name, value in settings.items()]


def _container_app(action: list[str], name: str, options: dict[str, list[str]], state: State) -> Any:
    apps = state.setdefault("apps", {})
    if action == ["create"]:
        ingress = {"fqdn": f"{state['address']}/{name}", "traffic": [{"latestRevision": True, "weight": 100}]}
        configuration = {"activeRevisionsMode": "Multiple", "ingress": ingress}
        apps[name] = {
            "name": name,
            "properties": {"latestRevisionName": f"{name}--1", "configuration": configuration, "template": {}},
        }
    app = apps[name]
    container = {"image": options.get("--image"), "env": _variables(app, options)}
    if action in (["create"], ["update"]) and app["properties"]["template"] != {"containers": [container]}:
        app["properties"]["template"] = {"containers": [container]}
        number = int(app["properties"]["latestRevisionName"].rsplit("--", 1)[1]) + (action == ["update"])
        app["properties"]["latestRevisionName"] = f"{name}--{number}"
    secrets = state.setdefault("app-secrets", {})
    secrets.update(line.split("=", 1) for line in _lines(options.get("--secrets", [])))
    app["properties"]["configuration"]["secrets"] = [{"name": one} for one in secrets]
    if action == ["secret", "show"]:
        return {"value": secrets[options["--secret-name"][0]]}
    if action == ["ingress", "traffic", "set"]:
        weights = dict(word.split("=") for word in options["--revision-weight"])
        traffic = [{"revisionName": one, "weight": int(weight)} for one, weight in weights.items() if one != "latest"]
        app["properties"]["configuration"]["ingress"]["traffic"] = traffic
    if action[0] == "revision" and "--revision" in options:
        return _revision(action[1], options["--revision"][0], state)
    return app


def _revision(action: str, revision: str, state: State) -> Any:
    asleep = set(state.get("asleep", [])) - {revision}
    if action == "deactivate" or (action != "activate" and revision in state.get("asleep", [])):
        asleep.add(revision)
    state["asleep"] = sorted(asleep)
    return {"properties": {"fqdn": f"{state['address']}/{revision}", "active": revision not in asleep}}


def _variables(app: Any, options: dict[str, list[str]]) -> list[Any]:
    """What the next revision has in its environment."""
    kept = [one for container in app["properties"]["template"].get("containers", []) for one in container["env"]]
    found = {one["name"]: one for one in kept if one["name"] not in options.get("--remove-env-vars", [])}
    for name, _, value in (w.partition("=") for key in ("--env-vars", "--set-env-vars") for w in options.get(key, [])):
        reference = value.removeprefix("secretref:")
        found[name] = {"name": name} | ({"value": value} if reference == value else {"secretRef": reference})
    return list(found.values())


def _lines(words: list[str]) -> list[str]:
    return [Path(word.removeprefix("@")).read_text() for word in words]


def gcloud(words: list[str], options: dict[str, list[str]], state: State) -> Any:
    """What gcloud answers."""
    match words:
        case ["auth", "list", *_]:
            return "somebody@example.com"
        case ["auth", "print-identity-token", *_]:
            return "identity-token"
        case ["config", "get-value", "project", *_]:
            return state.get("project", "my-project")
        case ["projects", "describe", *_]:
            return {"projectNumber": "123"}
        case ["secrets", *_]:
            return _secret(words, options, state.setdefault("secrets", {}))
        case ["run", "services", "list", *_]:
            return list(state.get("services", {}).values())
        case ["run", "deploy", name, *_]:
            return _run(name, options, state)
        case ["run", "services", action, name, *_]:
            return _traffic(action, state["services"][name], options)
        case ["ai", kind, action, *rest]:
            return _vertex(kind, action, rest[0], options, state)
    return None


def _secret(words: list[str], options: dict[str, list[str]], secrets: dict[str, list[str]]) -> Any:
    match words:
        case ["secrets", "list", *_]:
            return [{"name": f"projects/p/secrets/{name}"} for name in secrets]
        case ["secrets", "create", name, *_]:
            secrets[name] = []
        case ["secrets", "versions", "add", name, *_]:
            secrets[name].append(Path(options["--data-file"][0]).read_text())
            return {"name": f"projects/p/secrets/{name}/versions/{len(secrets[name])}"}
        case ["secrets", "versions", "access", *_]:
            return secrets[options["--secret"][0]][-1]
        case ["secrets", "versions", "describe", *_]:
            name = options["--secret"][0]
            return {"name": f"projects/p/secrets/{name}/versions/{len(secrets[name])}"}
    return {}


def _run(name: str, options: dict[str, list[str]], state: State) -> Any:
    service = state.setdefault("services", {}).setdefault(
        name, {"metadata": {"name": name}, "status": {"url": f"https://{state['address']}/{name}", "traffic": []}}
    )
    before = service.get("spec", {"template": {"spec": {"containers": [{"env": []}]}}})
    variables = {one["name"]: one for one in before["template"]["spec"]["containers"][0]["env"]}
    for word in (word for each in options.get("--update-secrets", []) for word in each.split(",")):
        variable, _, place = word.partition("=")
        secret, _, version = place.partition(":")
        variables[variable] = {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": version}}}
    service["spec"] = {"template": {"spec": {"containers": [{"env": list(variables.values())}]}}}
    state["revisions"] = state.get("revisions", 0) + 1
    new: dict[str, Any] = {"revisionName": f"{name}-{state['revisions']}"}
    if "--no-traffic" in options:
        tag = options["--tag"][0]
        service["status"]["traffic"].append(new | {"tag": tag, "url": f"https://{state['address']}/{tag}"})
    else:
        service["status"]["traffic"] = [new | {"percent": 100}]
    return service


def _traffic(action: str, service: Any, options: dict[str, list[str]]) -> Any:
    traffic = service["status"]["traffic"]
    if "--to-tags" in options:
        for one in traffic:
            one["percent"] = 100 if one.get("tag") == "candidate" else 0
    if "--to-revisions" in options:
        percents = dict(word.split("=") for word in options["--to-revisions"][0].split(","))
        for one in traffic:
            one["percent"] = int(percents.get(one["revisionName"], 0))
    if "--remove-tags" in options:
        for one in traffic:
            one.pop("tag", None)
        service["status"]["traffic"] = [one for one in traffic if one.get("percent")]
    return service if action == "describe" else traffic


def _vertex(kind: str, action: str, which: str, options: dict[str, list[str]], state: State) -> Any:
    things: list[Any] = state.setdefault(kind, [])
    match action:
        case "list":
            return things
        case "upload":
            things[:] = [{"name": "projects/p/models/7", "displayName": options["--display-name"][0]}]
            state["versions"] = state.get("versions", 0) + 1
            return {"model": "projects/p/models/7", "modelVersionId": str(state["versions"])}
        case "create":
            things.append({"name": "projects/p/endpoints/9", "trafficSplit": {}})
            return {"name": "projects/p/endpoints/9"}
        case "deploy-model" | "update":
            split = {one: int(share) for one, share in (w.split("=") for w in options["--traffic-split"][0].split(","))}
            new = options.get("--deployed-model-id", [""])[0]
            things[0]["trafficSplit"] = {new if one == "0" else one: share for one, share in split.items()}
        case "undeploy-model":
            things[0]["trafficSplit"].pop(options["--deployed-model-id"][0], None)
        case "predict":
            return {"predictions": state.get("replies", [{"predictions": [{"label": "car"}]}])}
    return {"name": which}


def _named_files(words: list[str]) -> dict[str, str]:
    """What lies in the files that the words name."""
    found = {}
    for word in words:
        path = Path(word.removeprefix("@"))
        if path.is_absolute() and path.is_file():
            found[path.name] = path.read_text(errors="replace")[:5000]
    return found


def main(program: str, place: str, words: list[str]) -> int:
    folder = Path(place)
    state: State = json.loads((folder / "state.json").read_text())
    with (folder / "calls").open("a") as log:
        log.write(json.dumps({"words": words, "files": _named_files(words)}) + "\n")
    pattern, stderr = state.get("failing", (None, ""))
    if pattern and re.search(pattern, " ".join(words)):
        sys.stderr.write(f"ERROR: {stderr}\n")
        return 1
    answer = {"az": az, "gcloud": gcloud}[program](words, options_of(words), state)
    (folder / "state.json").write_text(json.dumps(state))
    sys.stdout.write(answer if isinstance(answer, str) else json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
