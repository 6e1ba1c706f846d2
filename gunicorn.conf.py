"""How gunicorn runs `shared.web:application`; it reads this file by itself from the folder that it is started in."""

import os

from gunicorn.workers import gthread  # type: ignore[import-untyped]

from shared.errors import ConfigurationError
from shared.host import LIBRARY_VARIABLES
from shared.settings import Settings

# Vertex AI and Cloud Run say the port, and then mean every address; a person at a keyboard means their own machine.
_port = os.environ.get("AIP_HTTP_PORT") or os.environ.get("PORT")
_address = os.environ.get("BIND") or ("0.0.0.0" if _port else "127.0.0.1")
bind = f"{_address}:{_port or '8080'}"

try:
    threads = Settings.load().server_threads
except ConfigurationError:  # the application tells which setting is wrong
    threads = 4
graceful_timeout = 30
limit_request_line = 8190  # an image_url may be as long
control_socket_disable = True  # else it writes under the home folder, which a read-only container has not
# How long idle connections may hold a stopping process; gunicorn's own two seconds are all that a host may grant.
gthread.STOP_KEEPALIVE_LINGER = 0.5

for name, value in LIBRARY_VARIABLES.items():
    os.environ.setdefault(name, value)
