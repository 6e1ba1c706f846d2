"""`python -m model_server`."""

import sys

from model_server.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
