"""Whether what was just deployed answers: ready first, then a photograph."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from model_server.failures import Stopped

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "web" / "static" / "samples" / "street-small.jpg"
_ONE_S = 60.0
_PAUSE_S = 3.0
_UNREACHABLE = (URLError, http.client.HTTPException, OSError)


@dataclass(frozen=True, slots=True)
class Smoke:
    """A test of a deployed service. `headers` hold its keys and are never shown."""

    picture: Path = SAMPLE
    limit_s: float = 600.0
    may_be_empty: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    pause_s: float = _PAUSE_S

    def with_keys(self, keys: str) -> Smoke:
        """The test that shows the first of the service's own `keys`, which commas separate, if there is one."""
        first = keys.partition(",")[0].strip()
        return replace(self, headers={**self.headers, "X-API-Key": first}) if first else self

    def check(self, url: str) -> None:
        """Raises Stopped unless the service at `url` becomes ready in time and finds something in the picture."""
        sys.stderr.write(f"smoke test: {url}\n")
        self._wait(url)
        status, text = self._asked(f"{url}/predict", self.picture.read_bytes())
        if status != 200:
            raise Stopped(f"{url}/predict: expected 200, found {status}: {text[:500]}")
        self.judge(f"{url}/predict", _json(text))

    def judge(self, where: str, reply: Any) -> None:
        """Raises Stopped unless `reply` is one to a picture."""
        found = reply.get("predictions") if isinstance(reply, dict) else None
        if not isinstance(found, list):
            raise Stopped(f"{where}: expected predictions, found {json.dumps(reply)[:500]}")
        if not found and not self.may_be_empty:
            raise Stopped(
                f"{where}: nothing found in {self.picture.name}; --sample names a picture that fits the model"
            )
        sys.stderr.write(f"smoke test: {len(found)} predictions\n")

    def _wait(self, url: str) -> None:
        end = time.monotonic() + self.limit_s
        while True:
            try:
                status, text = self._asked(f"{url}/ready")
            except Stopped as error:
                last = str(error)
            else:
                if status == 200:
                    return
                last = f"{url}/ready: {status}: {text[:500]}"
            if time.monotonic() >= end:
                raise Stopped(f"not ready after {self.limit_s:g} s: {last}")
            time.sleep(self.pause_s)

    def _asked(self, url: str, picture: bytes | None = None) -> tuple[int, str]:
        kind = {"Content-Type": "image/jpeg"} if picture is not None else {}
        request = Request(url, data=picture, headers={**kind, "Accept": "application/json", **self.headers})
        try:
            with urlopen(request, timeout=_ONE_S) as reply:
                return reply.status, reply.read().decode(errors="replace")
        except HTTPError as error:
            with error:
                return error.code, error.read().decode(errors="replace")
        except _UNREACHABLE as error:
            raise Stopped(f"{url}: {error}") from error


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
