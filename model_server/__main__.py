"""`python -m model_server`."""

import os
import sys

from shared.host import LIBRARY_VARIABLES


def run() -> int:
    """The command, with what libraries read when they are loaded set before any is. Ctrl-C may come before that."""
    try:
        for name, value in LIBRARY_VARIABLES.items():
            os.environ.setdefault(name, value)
        from model_server.cli import main

        return main(sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
