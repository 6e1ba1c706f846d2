"""One command for Google: python3 -m docker.deploy.google KIND --name NAME --region REGION …

function   a staged folder as a function on Cloud Run
run        an image on Cloud Run: scales to zero, has a GPU
vertex     an image on a Vertex AI endpoint
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from docker.deploy import google_run, google_vertex, options, sizes
from docker.deploy.commands import Cloud, Rehearsal, Tool
from docker.deploy.declared import Declared
from docker.deploy.ending import ended
from docker.deploy.google_run import TAG, Service
from docker.deploy.google_vertex import Endpoint
from docker.deploy.package import check_staged
from docker.deploy.smoke import Smoke
from model_server.failures import Stopped

_JSON = ("--format=json",)
_HINT = "install the Google Cloud CLI, or see the commands with --dry-run"
_STAGED = ("main.py", "requirements.txt", "shared/settings.py")
# Cloud Run's: the name and the tag make one label of a host name.
_LONGEST = 46 - len(TAG)
_MOST_MIB = {1: 4096, 2: 8192, 4: 16384, 6: 24576, 8: 32768}
_LEAST_MIB = {4: 2048, 6: 4096, 8: 4096}
_GPU_CPU, _GPU_MIB = 4, 16384
_Kinds: TypeAlias = "argparse._SubParsersAction[options.Parser]"


def main(given: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit status."""
    chosen = _parser().parse_args(given)
    return ended("google", chosen, lambda: _deploy(chosen, environ))


def _deploy(chosen: argparse.Namespace, environ: Mapping[str, str]) -> str:
    settings = options.settings_of(chosen, environ)
    test = options.smoke_of(chosen, settings)
    options.check_form("--region", chosen.region, r"[a-z]+-[a-z]+[0-9]{1,2}", "a region such as europe-west4")
    sizes.instances(chosen.min_instances, chosen.max_instances)
    run: Callable[[Cloud], str] = chosen.prepare(chosen, environ, settings, test)
    project = ("--quiet", *(("--project", chosen.project) if chosen.project else ()))
    if chosen.dry_run:
        return run(Rehearsal("gcloud", project, _JSON, chosen.dry_run == "again"))
    hidden = [*settings.secret.values(), environ.get("DEPLOY_IDENTITY_TOKEN", "")]
    with Tool("gcloud", _HINT, project, _JSON, hidden) as cloud:
        _check_login(cloud, chosen.project)
        return run(cloud)


def _service(
    chosen: argparse.Namespace, environ: Mapping[str, str], settings: Declared, test: Smoke
) -> Callable[[Cloud], str]:
    options.check_form("--name", chosen.name, r"[a-z]([a-z0-9-]*[a-z0-9])?", "small letters, digits and -")
    options.check_form("--name", chosen.name, rf".{{1,{_LONGEST}}}", f"at most {_LONGEST} characters")
    image: str | None = chosen.image
    source: Path | None = chosen.source
    if image:
        options.check_image(image)
    if source:
        if not source.is_dir():
            raise Stopped(f"--source {source}: expected a staged folder (make stage)")
        check_staged(source, _STAGED, chosen.bundle, settings.values.get("THINLENS_BACKEND"))
    cpu, memory = _size(chosen)
    sizes.check_memory(memory, settings.values.get("THINLENS_BACKEND"))
    wanted = Service(
        name=chosen.name, region=chosen.region, cpu=cpu, memory_mib=memory,
        concurrency=sizes.concurrency(chosen.concurrency, cpu), least=chosen.min_instances, most=chosen.max_instances,
        timeout_s=chosen.timeout_s, public=chosen.public, image=image, source=source,
        python=chosen.python, gpu=chosen.gpu, account=chosen.service_account,
        identity_token=environ.get("DEPLOY_IDENTITY_TOKEN"),
    )  # fmt: skip
    return lambda cloud: google_run.deploy(wanted, cloud, settings, test)


def _endpoint(
    chosen: argparse.Namespace, _environ: Mapping[str, str], settings: Declared, test: Smoke
) -> Callable[[Cloud], str]:
    options.check_form("--name", chosen.name, r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", "1 to 63 letters, digits, _ and -")
    options.check_image(chosen.image)
    if "THINLENS_API_KEYS" in settings.values:
        raise Stopped("THINLENS_API_KEYS: Vertex AI lets callers in itself, and sends no keys; expected none")
    if chosen.min_instances < 1:
        raise Stopped(f"--min-instances: Vertex AI keeps one replica at least, found {chosen.min_instances}")
    wanted = Endpoint(
        name=chosen.name, region=chosen.region, image=chosen.image, machine=chosen.machine_type,
        least=chosen.min_instances, most=chosen.max_instances, gpu=chosen.gpu, artifacts=chosen.artifact_uri,
        account=chosen.service_account,
    )  # fmt: skip
    return lambda cloud: google_vertex.deploy(wanted, cloud, settings, test)


def _size(chosen: argparse.Namespace) -> tuple[float, int]:
    """Cores and MiB that Cloud Run has together. Raises Stopped."""
    gpu: str | None = chosen.gpu
    cpu = chosen.cpu if chosen.cpu is not None else (_GPU_CPU if gpu else 2)
    memory = sizes.mebibytes(chosen.memory or ("16Gi" if gpu else "1Gi"))
    if cpu not in _MOST_MIB:
        raise Stopped(f"--cpu: expected {', '.join(map(str, _MOST_MIB))}, found {cpu}")
    if gpu and (cpu < _GPU_CPU or memory < _GPU_MIB):
        raise Stopped(f"--gpu: needs {_GPU_CPU} cores and {_GPU_MIB} MiB at least, found {cpu} and {memory}")
    if not _LEAST_MIB.get(cpu, 512) <= memory <= _MOST_MIB[cpu]:
        least, most = _LEAST_MIB.get(cpu, 512), _MOST_MIB[cpu]
        raise Stopped(f"--memory: {cpu} cores go with {least} to {most} MiB, found {memory}")
    return cpu, memory


def _check_login(cloud: Cloud, project: str | None) -> None:
    if not cloud.text("auth", "list", "--filter=status:ACTIVE", "--format=value(account)", expected=""):
        raise Stopped("gcloud: no login; run 'gcloud auth login'")
    if not project and not cloud.text("config", "get-value", "project", expected=""):
        raise Stopped("gcloud: no project; say --project, or run 'gcloud config set project PROJECT'")


def _parser() -> argparse.ArgumentParser:
    parser = options.Parser(prog="python3 -m docker.deploy.google", description="Deploys to Google with one command.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", parser_class=options.Parser)
    _add_function(kinds)
    _add_run(kinds)
    _add_vertex(kinds)
    return parser


def _add_kind(kinds: _Kinds, name: str, text: str) -> argparse.ArgumentParser:
    kind = kinds.add_parser(name, help=text, description=text)
    options.add_common(kind, "the service, or the endpoint", "such as europe-west4")
    kind.add_argument("--project", help="the project (gcloud's own)")
    kind.add_argument("--service-account", help="the account that it runs as (the project's default)")
    return kind


def _add_function(kinds: _Kinds) -> None:
    kind = _add_kind(kinds, "function", "a staged folder as a function on Cloud Run")
    kind.add_argument("--source", type=Path, required=True, help="the staged folder (make stage)")
    kind.add_argument("--python", default="python311", help="the base image, kept patched by Google (%(default)s)")
    _add_service(kind)
    kind.set_defaults(image=None, gpu=None)


def _add_run(kinds: _Kinds) -> None:
    kind = _add_kind(kinds, "run", "an image on Cloud Run: scales to zero, has a GPU")
    kind.add_argument("--image", required=True, help="a google-… image, with a tag or digest")
    kind.add_argument(
        "--gpu", nargs="?", const="nvidia-l4",
        help="one GPU (nvidia-l4), with 4 cores and 16Gi at least; paid while the instance lives, not by the request",
    )  # fmt: skip
    _add_service(kind)
    kind.set_defaults(source=None, python="")


def _add_service(kind: argparse.ArgumentParser) -> None:
    options.add_concurrency(kind)
    options.add_instances(kind, 10, "nobody asks, nothing costs; the first request waits for a start")
    kind.add_argument("--cpu", type=int, help="cores (2: decoding and the model share them; 4 with a GPU)")
    kind.add_argument(
        "--memory",
        help="of one instance (1Gi: the bundled detector takes some 120 MB, a large picture some 200 MB, and /tmp "
        "counts; 16Gi with a GPU)",
    )
    kind.add_argument("--timeout-s", type=int, default=60, help="of a request, as THINLENS_TIMEOUT_S (%(default)d)")
    kind.add_argument("--public", action="store_true", help="let everyone in; else callers need the role run.invoker")
    kind.set_defaults(prepare=_service)


def _add_vertex(kinds: _Kinds) -> None:
    kind = _add_kind(kinds, "vertex", "an image on a Vertex AI endpoint")
    kind.add_argument("--image", required=True, help="a vertex-… image in Artifact Registry, with a tag or digest")
    kind.add_argument("--machine-type", default="n1-standard-2", help="(%(default)s; g2-standard-4 for an L4)")
    kind.add_argument("--gpu", nargs="?", const="nvidia-l4", help="one accelerator (nvidia-l4)")
    kind.add_argument("--artifact-uri", help="gs://…, a bundle that is fetched at the start (AIP_STORAGE_URI)")
    kind.add_argument("--min-instances", type=int, default=1, help="replicas (1: Vertex AI has no scale to zero here)")
    kind.add_argument("--max-instances", type=int, default=2, help="the ceiling of what it can cost (%(default)d)")
    kind.set_defaults(prepare=_endpoint)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
