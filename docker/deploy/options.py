"""What both clouds' commands take, and the errors that are found before anything is changed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from docker.deploy import sizes
from docker.deploy.declared import API_KEYS, PREFIX, SERVERS, Declared, checked, declared, known
from docker.deploy.smoke import SAMPLE, Smoke
from model_server.failures import Stopped

_IMAGE = re.compile(
    r"(?:[a-z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][\w.-]{0,127}|@sha256:[0-9a-f]{64})"
)
_SCHEMES = {"http": ("http", "https"), "grpc": ("grpc", "grpcs")}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def add_common(parser: argparse.ArgumentParser, name: str, region: str) -> None:
    """The options of every kind."""
    parser.add_argument("--name", required=True, help=name)
    parser.add_argument("--region", required=True, help=region)
    parser.add_argument("--bundle", help=f"the default model ({PREFIX}MODEL), which has to be in what is deployed")
    parser.add_argument(
        "--backend",
        choices=known()[f"{PREFIX}BACKEND"],
        help=f"what runs the model ({PREFIX}BACKEND); unset, what the package or image has",
    )
    parser.add_argument("--backend-url", help="the model server, for --backend triton and tfserving")
    parser.add_argument("--backend-protocol", choices=("http", "grpc"), help="how it is spoken to (http)")
    parser.add_argument("--forward", choices=("tensor", "encoded"), help="what Triton is sent (tensor)")
    parser.add_argument(
        "--setting", action="append", default=[], metavar=f"{PREFIX}NAME=VALUE", help="any other setting of the README"
    )
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar=f"{PREFIX}NAME",
        help="a setting whose value is in the environment",
    )
    parser.add_argument("--settings-file", type=Path, metavar="FILE", help="NAME=VALUE lines; may hold secrets")
    parser.add_argument("--unset", action="append", default=[], metavar=f"{PREFIX}NAME", help="takes a setting away")
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="the JPEG of the smoke test (a street)")
    parser.add_argument("--sample-may-be-empty", action="store_true", help="nothing need be found in it")
    parser.add_argument("--ready-s", type=float, default=600.0, help="how long /ready may take (%(default)g)")
    parser.add_argument(
        "--dry-run",
        nargs="?",
        const="first",
        choices=("first", "again"),
        help="print the commands of a first deployment, or of a later one; needs no tool and no login",
    )


def add_instances(parser: argparse.ArgumentParser, most: int, why_least: str) -> None:
    """The bounds of scaling."""
    parser.add_argument("--min-instances", type=int, default=0, help=f"instances kept awake (0: {why_least})")
    parser.add_argument("--max-instances", type=int, default=most, help="the ceiling of what it can cost (%(default)d)")


def add_concurrency(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--concurrency",
        type=int,
        help=f"requests at once for one instance ({sizes.PER_CORE} a core: the function works on two a core and as "
        "many wait some hundredths of a second, less than another instance takes to start)",
    )


def settings_of(options: argparse.Namespace, environ: Mapping[str, str]) -> Declared:
    """Every setting that the options name. Raises Stopped."""
    found = declared(options.setting, options.secret, options.settings_file, options.unset, environ)
    short = {
        "BACKEND": options.backend,
        "BACKEND_URL": options.backend_url,
        "BACKEND_PROTOCOL": options.backend_protocol,
        "FORWARD": options.forward,
        "MODEL": options.bundle,
    }
    values = dict(found.values)
    for name, value in short.items():
        if value and values.setdefault(PREFIX + name, checked(PREFIX + name, value)) != value:
            raise Stopped(f"{PREFIX}{name} is given twice")
    if getattr(options, "gpu", None) and values.get(f"{PREFIX}BACKEND") not in SERVERS:
        values.setdefault(f"{PREFIX}DEVICE", "cuda")  # else the GPU would be paid for and idle
    _check_server(values)
    return Declared(values, found.unset)


def _check_server(values: Mapping[str, str]) -> None:
    backend, url = values.get(f"{PREFIX}BACKEND"), values.get(f"{PREFIX}BACKEND_URL")
    if backend in SERVERS and not url:
        raise Stopped(f"--backend {backend} needs --backend-url")
    if url and backend is not None and backend not in SERVERS:
        raise Stopped(f"--backend-url is for a model server ({', '.join(SERVERS)}), found --backend {backend}")
    schemes = _SCHEMES[values.get(f"{PREFIX}BACKEND_PROTOCOL", "http")]
    if url and (urlsplit(url).scheme not in schemes or not urlsplit(url).hostname):
        raise Stopped(f"--backend-url: expected {schemes[0]}://HOST:PORT, found {url!r}")
    if url and urlsplit(url).password:
        raise Stopped(f"--backend-url holds a password; {PREFIX}BACKEND_TOKEN is for secrets")


def smoke_of(options: argparse.Namespace, settings: Declared) -> Smoke:
    """The smoke test that the options ask for."""
    if not options.sample.is_file():
        raise Stopped(f"--sample {options.sample}: there is no such file")
    test = Smoke(options.sample, options.ready_s, options.sample_may_be_empty)
    return test.with_keys(settings.values.get(API_KEYS, ""))


def check_image(image: str) -> None:
    """Raises Stopped unless `image` is one that stays the same."""
    if not _IMAGE.fullmatch(image):
        raise Stopped(f"--image: expected REGISTRY/NAME:TAG or …@sha256:DIGEST, found {image!r}")
    if image.endswith(":latest"):
        raise Stopped("--image: expected a tag that is not moved, so that there is a way back; found 'latest'")


def check_form(option: str, value: str, form: str, expected: str) -> None:
    """Raises Stopped unless `value` is of the form."""
    if not re.fullmatch(form, value):
        raise Stopped(f"{option}: expected {expected}, found {value!r}")
