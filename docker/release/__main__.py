from __future__ import annotations

import sys

from docker.release.command import main

sys.exit(main(sys.argv[1:]))
