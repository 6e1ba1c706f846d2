"""Our first answer in one process, timed between its steps; argv[1] is the monotonic time at which it was started."""

from time import monotonic

ran_s = monotonic()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from io import BytesIO  # noqa: E402
from pathlib import Path  # noqa: E402

begin_s = monotonic()

from shared.settings import Settings  # noqa: E402
from shared.web.application import Application  # noqa: E402

imported_s = monotonic()
application = Application(Settings.load())
built_s = monotonic()
picture = Path(os.environ["BENCH_PICTURE"]).read_bytes()
environ = {
    "REQUEST_METHOD": "POST",
    "PATH_INFO": "/predict",
    "CONTENT_TYPE": "image/jpeg",
    "CONTENT_LENGTH": str(len(picture)),
    "wsgi.input": BytesIO(picture),
}
asked_s = monotonic()
reply = json.loads(b"".join(application(environ, lambda status, headers: None)))  # type: ignore[arg-type]
answered_s = monotonic()
timings_ms = reply["timings_ms"]
total_ms = timings_ms.pop("total")
stages_ms = {
    "interpreter": (ran_s - float(sys.argv[1])) * 1e3,
    "import shared.web": (imported_s - begin_s) * 1e3,
    "build the service": (built_s - imported_s) * 1e3,
    **timings_ms,
    "routing, reading, reply": (answered_s - asked_s) * 1e3 - sum(timings_ms.values()),
}
sys.stdout.write(json.dumps(stages_ms) + "\n")
