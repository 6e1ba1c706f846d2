"""One command for Azure: python3 -m docker.deploy.azure KIND --name NAME --group GROUP --region REGION …

functionapp    a staged folder, or its zip file, on Azure Functions
container      an image on Azure Functions, on a plan of always running machines
containerapp   an image on Azure Container Apps: scales to zero, has GPUs
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from docker.deploy import azure_containers, azure_functions, options, sizes
from docker.deploy.azure_containers import GPUS, ContainerApp
from docker.deploy.azure_foundations import storage_name
from docker.deploy.azure_functions import FunctionApp
from docker.deploy.commands import Cloud, Rehearsal, Tool
from docker.deploy.declared import Declared
from docker.deploy.ending import ended
from docker.deploy.package import check_python, check_staged, is_complete
from docker.deploy.smoke import Smoke
from model_server.failures import Stopped

_JSON = ("--only-show-errors", "--output", "json")
_HINT = "install the Azure CLI, or see the commands with --dry-run"
_STAGED = ("host.json", "function_app.py", "requirements.txt", "shared/settings.py")
# Cores come with the memory, and with the size of a plan's machines.
_FLEX_CORES = {512: 0.25, 2048: 1.0, 4096: 2.0}
_SKU_CORES = {"EP1": 1, "EP2": 2, "EP3": 4}
_MOST_INSTANCES = {"flex": 40, "premium": 20}
_MOST_BURST = 20  # az functionapp plan update takes no more
_CONSUMPTION_MIB = 1536
_Kinds: TypeAlias = "argparse._SubParsersAction[options.Parser]"
_Registry: TypeAlias = tuple[str, str, str] | None


def main(given: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit status."""
    chosen = _parser().parse_args(given)
    return ended("azure", chosen, lambda: _deploy(chosen, environ))


def _deploy(chosen: argparse.Namespace, environ: Mapping[str, str]) -> str:
    settings = options.settings_of(chosen, environ)
    test = options.smoke_of(chosen, settings)
    _check_common(chosen)
    registry = _registry(chosen, environ)
    run: Callable[[Cloud], str] = chosen.prepare(chosen, registry, settings, test)
    if chosen.dry_run:
        return run(Rehearsal("az", (), _JSON, chosen.dry_run == "again"))
    with Tool("az", _HINT, (), _JSON, [*settings.secret.values(), *(registry or ())[2:]]) as cloud:
        _check_login(cloud)
        return run(cloud)


def _function_app(
    chosen: argparse.Namespace, registry: _Registry, settings: Declared, test: Smoke
) -> Callable[[Cloud], str]:
    plan: str = chosen.plan
    options.check_form(
        "--name", chosen.name, r"[A-Za-z0-9][A-Za-z0-9-]{0,48}[A-Za-z0-9]", "2 to 50 letters, digits and -"
    )
    if chosen.image:
        options.check_image(chosen.image)
    else:
        check_staged(chosen.package, _STAGED, chosen.bundle, settings.values.get("THINLENS_BACKEND"))
        check_python(chosen.package, chosen.python)
    least, most = _instances(plan, chosen.min_instances, chosen.max_instances)
    memory = _memory(plan, chosen.memory)
    sizes.check_memory(memory, settings.values.get("THINLENS_BACKEND"))
    cores = {"flex": _FLEX_CORES.get(memory, 1.0), "consumption": 1}.get(plan, _SKU_CORES[chosen.sku])
    wanted = FunctionApp(
        group=chosen.group, name=chosen.name, region=chosen.region, plan=plan, sku=chosen.sku,
        storage=_storage(chosen), python=chosen.python, memory_mib=memory,
        concurrency=sizes.concurrency(chosen.concurrency, cores), least=least, most=most,
        slot=chosen.slot, staging_app=not chosen.no_staging, package=chosen.package, image=chosen.image,
        registry=registry, previous=chosen.previous, no_way_back=chosen.no_way_back,
        build=not (chosen.package and is_complete(chosen.package)),
    )  # fmt: skip
    return lambda cloud: azure_functions.deploy(wanted, cloud, settings, test)


def _container_app(
    chosen: argparse.Namespace, registry: _Registry, settings: Declared, test: Smoke
) -> Callable[[Cloud], str]:
    options.check_form("--name", chosen.name, r"[a-z](?:-?[a-z0-9])*", "small letters, digits and single -")
    options.check_form("--name", chosen.name, r".{2,31}", "2 to 31 characters")
    options.check_image(chosen.image)
    sizes.instances(chosen.min_instances, chosen.max_instances)
    memory = 2048 * chosen.cpu if chosen.memory is None else sizes.mebibytes(chosen.memory)
    if chosen.gpu is None and memory != 2048 * chosen.cpu:
        raise Stopped(f"--memory: Container Apps gives 2Gi a core, here {2 * chosen.cpu:g}Gi, found {chosen.memory}")
    if chosen.gpu is None and not (0.25 <= chosen.cpu <= 4 and (chosen.cpu * 4).is_integer()):
        raise Stopped(f"--cpu: expected 0.25 to 4 by quarters, found {chosen.cpu:g}")
    sizes.check_memory(int(memory), settings.values.get("THINLENS_BACKEND"))
    cores = float(GPUS[chosen.gpu][1]) if chosen.gpu else chosen.cpu
    wanted = ContainerApp(
        group=chosen.group, name=chosen.name, region=chosen.region,
        environment=chosen.environment or f"{chosen.group}-env", image=chosen.image, port=chosen.port, cpu=chosen.cpu,
        memory_mib=int(memory), concurrency=sizes.concurrency(chosen.concurrency, cores), least=chosen.min_instances,
        most=chosen.max_instances, gpu=chosen.gpu, registry=registry, registry_identity=chosen.registry_identity,
    )  # fmt: skip
    return lambda cloud: azure_containers.deploy(wanted, cloud, settings, test)


def _check_common(chosen: argparse.Namespace) -> None:
    options.check_form("--region", chosen.region, r"[a-z][a-z0-9]+", "a region such as westeurope")
    options.check_form("--group", chosen.group, r"[A-Za-z0-9_()-]{1,60}", "letters, digits and _-()")


def _check_login(cloud: Cloud) -> None:
    try:
        cloud.do("account", "show")
    except Stopped as error:
        raise Stopped(f"az: no login; run 'az login' ({str(error).splitlines()[-1]})") from error


def _memory(plan: str, given: str | None) -> int:
    """The MiB of one instance."""
    if plan != "flex":
        if given is not None:
            raise Stopped(f"--memory: the {plan} plan has its own; expected none")
        return _CONSUMPTION_MIB if plan == "consumption" else 3584
    memory = sizes.mebibytes(given or "2048")
    if memory not in _FLEX_CORES:
        raise Stopped(f"--memory: Flex Consumption has 512, 2048 and 4096 MiB, found {given}")
    return memory


def _instances(plan: str, least: int | None, most: int | None) -> tuple[int, int]:
    """The bounds of scaling."""
    if plan == "consumption":
        if (least, most) != (None, None):
            raise Stopped("--min-instances, --max-instances: the consumption plan has its own; expected none")
        return 0, 1  # said to nobody
    least, most = least or 0, _MOST_INSTANCES[plan] if most is None else most
    sizes.instances(least, most)
    if plan == "premium" and most > _MOST_BURST:
        raise Stopped(f"--max-instances: the premium plan has {_MOST_BURST} at most, found {most}")
    return least, most


def _storage(chosen: argparse.Namespace) -> str:
    name = chosen.storage or storage_name(chosen.group, chosen.name)
    options.check_form("--storage", name, r"[a-z0-9]{3,24}", "3 to 24 small letters and digits")
    return name


def _registry(chosen: argparse.Namespace, environ: Mapping[str, str]) -> _Registry:
    """A private registry's name, user and password, of which the latter two come by the environment."""
    if not chosen.registry_login:
        return None
    user, password = environ.get("REGISTRY_USERNAME"), environ.get("REGISTRY_PASSWORD")
    if not user or not password:
        raise Stopped("--registry-login: expected REGISTRY_USERNAME and REGISTRY_PASSWORD in the environment")
    return chosen.image.split("/")[0], user, password


def _parser() -> argparse.ArgumentParser:
    parser = options.Parser(prog="python3 -m docker.deploy.azure", description="Deploys to Azure with one command.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", parser_class=options.Parser)
    _add_functionapp(kinds)
    _add_container(kinds)
    _add_containerapp(kinds)
    return parser


def _add_kind(kinds: _Kinds, name: str, text: str) -> argparse.ArgumentParser:
    kind = kinds.add_parser(name, help=text, description=text)
    options.add_common(kind, "the app; its address is made of it", "such as westeurope")
    kind.add_argument("--group", required=True, help="the resource group; made where there is none")
    options.add_concurrency(kind)
    return kind


def _add_functionapp(kinds: _Kinds) -> None:
    kind = _add_kind(kinds, "functionapp", "a staged folder, or its zip file, on Azure Functions")
    kind.add_argument(
        "--package",
        type=Path,
        required=True,
        help="the staged folder (make stage), or its zip file; a release's has its packages inside",
    )
    kind.add_argument(
        "--plan",
        choices=("flex", "consumption", "premium"),
        default="flex",
        help="flex (default): scales to zero, storage by identity; consumption: 1.5 GB, its Linux form ends in "
        "September 2028; premium: machines that always run, with a slot",
    )
    kind.add_argument(
        "--memory",
        help="of one instance, flex only: 512 (a quarter of a core), 2048 (one core; default), 4096 (two) MiB. The "
        "bundled detector takes some 120 MB; what is left is for pictures, a large one taking some 200 MB",
    )
    kind.add_argument("--python", default="3.11", choices=("3.11", "3.12", "3.13"), help="%(default)s")
    kind.add_argument("--no-staging", action="store_true", help="flex: no second app for the smoke test beforehand")
    kind.add_argument("--previous", type=Path, help="flex: the zip file to go back to, in place of what is deployed")
    kind.add_argument("--no-way-back", action="store_true", help="flex: do not save the package that is deployed now")
    _add_app(kind)
    kind.set_defaults(prepare=_function_app, image=None, registry_login=False)


def _add_container(kinds: _Kinds) -> None:
    kind = _add_kind(kinds, "container", "an image on Azure Functions, on a plan of always running machines")
    _add_image(kind, "an azure-… image")
    _add_app(kind)
    kind.set_defaults(
        prepare=_function_app, plan="premium", package=None, memory=None, python="", no_staging=True, previous=None,
        no_way_back=True,
    )  # fmt: skip


def _add_containerapp(kinds: _Kinds) -> None:
    kind = _add_kind(kinds, "containerapp", "an image on Azure Container Apps: scales to zero, has GPUs")
    _add_image(kind, "a google-… image, which is plain gunicorn; an azure-… one with --port 80")
    kind.add_argument("--registry-identity", help="an identity that may pull: 'system', or a resource id")
    kind.add_argument("--environment", help="the Container Apps environment (GROUP-env); made where there is none")
    kind.add_argument("--port", type=int, default=8080, help="where the image listens (%(default)d)")
    kind.add_argument("--cpu", type=float, default=1.0, help="cores, by quarters up to 4 (%(default)g)")
    kind.add_argument("--memory", help="2Gi a core, no other size")
    kind.add_argument("--gpu", choices=sorted(GPUS), help="a GPU by the second, with its own cores and memory")
    options.add_instances(kind, 10, "nobody asks, nothing costs; the first request waits for a start")
    kind.set_defaults(prepare=_container_app)


def _add_app(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--storage", help="the storage account of the host (a name made of the group's and the app's)")
    kind.add_argument("--slot", default="staging", help="the slot that takes it first, where the plan has slots")
    kind.add_argument(
        "--sku", default="EP1", choices=tuple(_SKU_CORES), help="the premium plan's machines (%(default)s)"
    )
    kind.add_argument("--min-instances", type=int, help="instances kept awake (0; premium keeps one at least)")
    kind.add_argument("--max-instances", type=int, help="the ceiling of what it can cost (flex 40, premium 20)")


def _add_image(kind: argparse.ArgumentParser, text: str) -> None:
    kind.add_argument("--image", required=True, help=f"{text}, with a tag or digest")
    kind.add_argument(
        "--registry-login", action="store_true", help="a private registry: REGISTRY_USERNAME and _PASSWORD are in the "
        "environment",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
