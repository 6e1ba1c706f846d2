"""The stand-in on the command line of the server that it stands in for, as a container starts it: on every address.

    python -m tests.tfserving_standin --port=8500 --rest_api_port=8501 --model_config_file=/models/models.config

It runs each request by itself and counts nothing, and says so where it is told to; other flags of the real server are
refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_EVERYWHERE = "0.0.0.0"


def main() -> None:
    """Serves until it is told to end."""
    parser = argparse.ArgumentParser(prog="tensorflow_model_server", allow_abbrev=False, description=__doc__)
    parser.add_argument("--port", type=int, default=8500)
    parser.add_argument("--rest_api_port", type=int, default=8501)
    parser.add_argument("--model_config_file", type=_file, required=True)
    for unused in ("--monitoring_config_file", "--batching_parameters_file"):
        parser.add_argument(unused, type=_file)
    parser.add_argument("--enable_batching", nargs="?", const="true", choices=("true", "false"), default="false")
    options = parser.parse_args()
    sys.stderr.write(
        f"a STAND-IN of TensorFlow Serving: no metrics, no batching (asked for: {options.enable_batching})\n"
    )
    from tests.tfserving_standin import rest, rpc
    from tests.tfserving_standin.models import Models

    models = Models(options.model_config_file.parent)
    server = rpc.start(models, options.port, _EVERYWHERE)
    try:
        rest.serve(models, options.rest_api_port, _EVERYWHERE)
    finally:
        server.stop(None)


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text)


if __name__ == "__main__":
    main()
