"""Chromium, without a window, for the tests of the page: its fixtures, and what a person would do."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests import servers

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

STREET = servers.ROOT / "shared/web/static/samples/street.jpg"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


@pytest.fixture(scope="module")
def page_server() -> Iterator[str]:
    """May fetch from itself, which is how the tests have a picture with an address."""
    yield from ready_server({"THINLENS_URL_FETCH": "127.0.0.1"})


def ready_server(settings: dict[str, str], prefix: str = "") -> Iterator[str]:
    """The page's address on a server of its own, once its model is loaded: a 503 of /ready is a line in the console."""
    with servers.container(settings) as server:
        base = f"{server.url}{prefix}/"
        until(lambda: answers(f"{base}ready"), 30)
        yield base


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except HTTPError as error:
        error.close()
        return False


@pytest.fixture(scope="module")
def start_chromium(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    try:
        from selenium.webdriver import Chrome, ChromeOptions, ChromeService
    except ImportError:
        missing = "selenium"
    else:
        missing = "" if binary and driver else "chromium or chromedriver"
    if missing:
        shout(request.config, f"NOT TESTED: the page in a browser, because {missing} is missing (make test-page)")
        pytest.skip(f"{missing} is missing")
    started: list[Chrome] = []

    def start(*flags: str) -> Chrome:
        options = ChromeOptions()
        options.binary_location = binary or ""
        for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", *flags):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        started.append(Chrome(options=options, service=ChromeService(driver)))
        return started[-1]

    yield start
    for chrome in started:
        chrome.quit()


def shout(config: pytest.Config, message: str) -> None:
    """A line in the terminal whatever is captured and however quiet pytest is."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        reporter.write_line(f"\n{message}", red=True, bold=True)


@pytest.fixture(scope="module")
def shared_chromium(start_chromium: Any) -> Chrome:
    chrome: Chrome = start_chromium()
    return chrome


@pytest.fixture
def chrome(shared_chromium: Chrome, page_server: str) -> Chrome:
    """The page, freshly loaded at desktop size in light colours, its logs empty."""
    look(shared_chromium, 1280, 900)
    visit(shared_chromium, page_server)
    return shared_chromium


def visit(chrome: Chrome, url: str) -> None:
    chrome.get(url)
    until(lambda: chrome.execute_script("return document.getElementById('status').dataset.state !== 'checking'"))
    until(lambda: chrome.execute_script("return document.getElementById('picture').complete"))
    chrome.execute_script("sessionStorage.clear()")
    chrome.get_log("browser")
    chrome.get_log("performance")


def look(chrome: Chrome, width: int, height: int, scheme: str = "light") -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def until(done: Any, limit_s: float = 15) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            pytest.fail(f"it did not happen within {limit_s} s")
        time.sleep(0.05)


def arrived(chrome: Chrome, state: str = "done") -> None:
    until(lambda: chrome.execute_script("return document.getElementById('main').className") == state)


def upload(chrome: Chrome, photo: Path, state: str = "done") -> None:
    chrome.find_element("id", "file").send_keys(str(photo))
    arrived(chrome, state)


def ask_url(chrome: Chrome, url: str, state: str) -> None:
    chrome.find_element("id", "url").send_keys(url + "\n")
    arrived(chrome, state)


def text(chrome: Chrome, selector: str) -> str:
    return str(chrome.execute_script("return document.querySelector(arguments[0]).innerText", selector))


def visible(chrome: Chrome, selector: str) -> int:
    script = "return [...document.querySelectorAll(arguments[0])].filter((e) => e.offsetParent).length"
    return int(chrome.execute_script(script, selector))


def requests_sent(chrome: Chrome) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
