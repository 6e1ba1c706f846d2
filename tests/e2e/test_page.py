"""The page at `/` in a real browser: Chromium, without a window, against a real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from tests.browser import (
    STREET,
    arrived,
    ask_url,
    look,
    ready_server,
    requests_sent,
    text,
    until,
    upload,
    visible,
    visit,
)

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.chromium

PAGE_BYTES = 40_000


# What the tests stand on


@pytest.fixture(scope="module")
def keyed_server() -> Iterator[str]:
    yield from ready_server({"THINLENS_API_KEYS": "open-sesame"})


@pytest.fixture(scope="module")
def prefixed_server() -> Iterator[str]:
    yield from ready_server({"SCRIPT_NAME": "/lens"}, "/lens")  # gunicorn's own way to live below a path


def set_score(chrome: Chrome, least: float) -> None:
    script = "score.value = arguments[0]; score.dispatchEvent(new Event('input'))"
    chrome.execute_script(f"const score = document.getElementById('score'); {script}", least)


def predict(base: str, photo: bytes, least: float = 0.05) -> dict[str, Any]:
    request = Request(f"{base}predict?score_threshold={least}", photo, {"Content-Type": "image/jpeg"})
    with urlopen(request, timeout=30) as response:
        reply: dict[str, Any] = json.load(response)
    return reply


# A photo in, boxes out


def test_boxes_of_an_uploaded_photo_lie_where_the_server_found_them(chrome: Chrome, page_server: str) -> None:
    upload(chrome, STREET)
    expected = predict(page_server, STREET.read_bytes())
    set_score(chrome, 0.05)
    script = """const p = document.getElementById('picture').getBoundingClientRect();
        const boxes = [...document.querySelectorAll('.box')].map((b) => b.getBoundingClientRect());
        return [p.width, boxes.map((b) => [b.left - p.left, b.top - p.top, b.right - p.left, b.bottom - p.top])]"""
    width, found = chrome.execute_script(script)
    scale = width / expected["image"]["width"]
    assert len(found) == len(expected["predictions"]) > 5
    for box, prediction in zip(found, expected["predictions"], strict=True):
        assert box == pytest.approx([edge * scale for edge in prediction["box"]], abs=1.0)


def test_the_slider_filters_without_another_request(chrome: Chrome, page_server: str) -> None:
    upload(chrome, STREET)
    requests_sent(chrome)
    scores = [p["score"] for p in predict(page_server, STREET.read_bytes())["predictions"]]
    for least in (0.05, 0.3, 0.8, 1.0):
        set_score(chrome, least)
        shown = sum(score >= least for score in scores)
        assert visible(chrome, "#boxes .box") == visible(chrome, "#rows tbody tr") == shown
    assert requests_sent(chrome) == []


def test_the_slider_starts_at_one_half(chrome: Chrome, page_server: str) -> None:
    upload(chrome, STREET)
    assert visible(chrome, "#boxes .box") == len(predict(page_server, STREET.read_bytes(), 0.5)["predictions"])


def test_times_of_every_stage_are_shown(chrome: Chrome) -> None:
    upload(chrome, STREET)
    assert {"decode", "preprocess", "infer", "postprocess"} <= set(text(chrome, "#timings").split())
    assert text(chrome, "#total").endswith("s")


def test_a_photo_turned_by_exif_is_shown_upright_with_its_boxes(
    chrome: Chrome, page_server: str, tmp_path: Path
) -> None:
    turned = tmp_path / "turned.jpg"
    with Image.open(STREET) as photo:
        exif = Image.Exif()
        exif[0x0112] = 6
        photo.transpose(Image.Transpose.ROTATE_90).save(turned, quality=95, exif=exif)
    upload(chrome, turned)
    assert text(chrome, "#caption") == "turned.jpg · 1280 × 743"
    wide, high = chrome.execute_script(
        "const p = document.getElementById('picture').getBoundingClientRect(); return [p.width, p.height]"
    )
    assert wide / high == pytest.approx(1280 / 743, rel=0.01)
    assert visible(chrome, "#boxes .box") == len(predict(page_server, turned.read_bytes(), 0.5)["predictions"]) > 2


def test_a_format_that_no_browser_shows_comes_back_as_a_picture(chrome: Chrome, tmp_path: Path) -> None:
    scan = tmp_path / "scan.tiff"
    with Image.open(STREET) as photo:
        photo.save(scan)
    upload(chrome, scan)
    assert chrome.execute_script("return document.getElementById('picture').naturalWidth") == 1280
    assert visible(chrome, "#boxes .box") > 2


def test_a_photo_by_address_is_shown_with_its_boxes(chrome: Chrome, page_server: str) -> None:
    ask_url(chrome, f"{page_server}static/samples/chelsea.jpg", "done")
    assert text(chrome, "#caption") == "chelsea.jpg · 451 × 300"
    assert chrome.execute_script("return document.getElementById('picture').naturalWidth") == 451
    assert "cat" in text(chrome, "#summary")


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_photo_can_be_pasted_or_dropped(chrome: Chrome, way: str) -> None:
    script = """const [way, done] = arguments;
        const blob = await (await fetch('static/samples/coffee.jpg')).blob();
        const data = new DataTransfer();
        data.items.add(new File([blob], 'mine.jpg', { type: 'image/jpeg' }));
        document.body.dispatchEvent(way === 'paste'
          ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true })
          : new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));"""
    chrome.execute_async_script(f"(async (...arguments) => {{ {script} done(); }})(...arguments)", way)
    arrived(chrome)
    assert text(chrome, "#caption") == "mine.jpg · 600 × 400"


def test_an_address_can_be_dropped(chrome: Chrome, page_server: str) -> None:
    script = """const data = new DataTransfer();
        data.setData('text/uri-list', arguments[0]);
        document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))"""
    chrome.execute_script(script, f"{page_server}static/samples/coffee.jpg")
    arrived(chrome)
    assert text(chrome, "#caption") == "coffee.jpg · 600 × 400"


def test_the_camera_gives_a_still(chrome: Chrome) -> None:
    chrome.find_element("id", "camera").click()
    shoot = chrome.find_element("id", "shoot")
    until(shoot.is_enabled)
    shoot.click()
    arrived(chrome)
    assert text(chrome, "#caption").startswith("photo.jpg · ")
    assert not chrome.execute_script("return document.getElementById('video').srcObject")


def test_a_new_photo_takes_the_place_of_one_under_way(chrome: Chrome) -> None:
    chrome.execute_script("document.querySelectorAll('#samples a').forEach((link) => link.click())")
    arrived(chrome)
    assert text(chrome, "#caption") == "coffee.jpg · 600 × 400"


def test_parameters_from_the_schema_go_into_the_request(chrome: Chrome) -> None:
    upload(chrome, STREET)
    chrome.find_element("css selector", "#options summary").click()
    until(lambda: chrome.find_elements("css selector", "#parameters [name=labels]"))
    chrome.find_element("css selector", "#parameters [name=labels]").send_keys("car, truck\t")
    until(lambda: "person" not in text(chrome, "#summary"))
    arrived(chrome)
    assert "car" in text(chrome, "#summary")


# The keyboard


def test_the_keyboard_alone_leads_from_a_sample_to_its_boxes(chrome: Chrome) -> None:
    from selenium.webdriver import ActionChains, Keys

    def press(key: str) -> None:
        ActionChains(chrome).send_keys(key).perform()

    def tab_to(selector: str) -> None:
        for _ in range(30):
            press(Keys.TAB)
            if chrome.execute_script("return document.activeElement.matches(arguments[0])", selector):
                return
        pytest.fail(f"30 tabs did not lead to {selector}")

    tab_to("#samples a")
    press(Keys.ENTER)
    arrived(chrome)
    tab_to("#score")
    press(Keys.ARROW_LEFT)
    assert text(chrome, "#score-text") == "0.49"
    tab_to("#rows tr")
    press(Keys.ARROW_DOWN)
    lit = "return [...document.querySelectorAll('.on')].map((e) => [e.tagName, e.dataset.i])"
    assert chrome.execute_script(lit) == [["DIV", "1"], ["TR", "1"]]


def test_a_box_under_the_pointer_lights_its_row(chrome: Chrome) -> None:
    from selenium.webdriver import ActionChains

    upload(chrome, STREET)
    ActionChains(chrome).move_to_element(chrome.find_element("css selector", "#boxes .box")).perform()
    boxes = chrome.execute_script("return [...document.querySelectorAll('#boxes .on')].map((e) => e.dataset.i)")
    rows = chrome.execute_script("return [...document.querySelectorAll('#rows .on')].map((e) => e.dataset.i)")
    assert boxes == rows
    assert len(rows) == 1


def test_the_result_is_announced(chrome: Chrome) -> None:
    upload(chrome, STREET)
    assert "objects: person" in text(chrome, "#announce[aria-live=polite]")


def test_every_field_has_a_name(chrome: Chrome) -> None:
    upload(chrome, STREET)
    script = """return [...document.querySelectorAll('input, select, button')]
        .filter((e) => !e.labels?.length && !e.textContent.trim() && !e.ariaLabel).map((e) => e.outerHTML)"""
    assert chrome.execute_script(script) == []


# Failures


def test_a_refused_address_is_explained_in_place(chrome: Chrome) -> None:
    ask_url(chrome, "http://10.0.0.1/photo.jpg", "failing")
    said = text(chrome, "#failure")
    assert "400 · url_refused · request " in said
    assert chrome.find_element("id", "failure").get_attribute("role") == "alert"


def test_a_file_that_is_no_picture_is_explained_in_place(chrome: Chrome, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear model")
    upload(chrome, tmp_path / "letter.txt", "failing")
    assert "415 · not_an_image" in text(chrome, "#failure")


def test_a_lost_connection_is_explained_and_can_be_tried_again(chrome: Chrome) -> None:
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    chrome.execute_cdp_cmd("Network.enable", {})
    chrome.execute_cdp_cmd("Network.emulateNetworkConditions", network | {"offline": True})
    upload(chrome, STREET, "failing")
    assert "network_failure" in text(chrome, "#failure")
    chrome.execute_cdp_cmd("Network.emulateNetworkConditions", network | {"offline": False})
    chrome.find_element("css selector", "#failure button").click()
    arrived(chrome)


def test_a_server_that_is_not_ready_is_waited_for_in_sight(chrome: Chrome) -> None:
    chrome.execute_script("""const real = window.fetch; let asked = 0;
        window.fetch = (...request) => asked++ ? real(...request) : Promise.resolve(new Response(
          JSON.stringify({ error: { code: 'not_ready', message: 'The model is loading.', request_id: 'r' } }),
          { status: 503, headers: { 'Retry-After': '2' } }))""")
    chrome.find_element("id", "file").send_keys(str(STREET))
    until(lambda: "The model is loading. Again in" in text(chrome, "#progress").replace("\n", " "))
    arrived(chrome)


def test_a_request_can_be_cancelled(chrome: Chrome) -> None:
    chrome.execute_script("window.fetch = (_, { signal }) => new Promise((_, no) => { signal.onabort = () => no(1) })")
    chrome.find_element("id", "file").send_keys(str(STREET))
    arrived(chrome, "busy")
    chrome.find_element("id", "cancel").click()
    arrived(chrome, "failing")
    assert "Cancelled" in text(chrome, "#failure")


def test_a_key_is_asked_for_and_stays_in_the_tab(shared_chromium: Chrome, keyed_server: str) -> None:
    visit(shared_chromium, keyed_server)
    upload(shared_chromium, STREET, "failing")
    shared_chromium.find_element("id", "key").send_keys("open-sesame\n")
    arrived(shared_chromium)
    assert shared_chromium.execute_script("return [localStorage.length, document.cookie]") == [0, ""]
    assert '"X-API-Key: $API_KEY"' in text(shared_chromium, "#curl")
    assert "sesame" not in shared_chromium.page_source


# The same call from a terminal


@pytest.mark.parametrize("source", ["upload", "address", "sample", "key"])
def test_the_curl_command_gives_the_same_predictions(
    shared_chromium: Chrome, page_server: str, keyed_server: str, source: str, tmp_path: Path
) -> None:
    chrome, base = shared_chromium, keyed_server if source == "key" else page_server
    visit(chrome, base)
    if source == "key":
        chrome.execute_script("sessionStorage.setItem('thinlens-api-key', 'open-sesame')")
    if source == "address":
        ask_url(chrome, f"{base}static/samples/street.jpg?a=1&b='2'", "done")
    elif source == "sample":
        chrome.find_element("css selector", "#samples a").click()
    else:
        upload(chrome, Path(shutil.copy(STREET, tmp_path / "it's a $photo & more.jpg")))
    arrived(chrome)
    command = ["sh", "-c", text(chrome, "#curl")]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, check=True, env=os.environ | {"API_KEY": "open-sesame"}
    )
    assert json.loads(ran.stdout)["predictions"] == predict_street(base)


def predict_street(base: str) -> Any:
    request = Request(f"{base}predict?score_threshold=0.5", STREET.read_bytes(), {"X-API-Key": "open-sesame"})
    request.add_header("Content-Type", "image/jpeg")
    with urlopen(request, timeout=30) as response:
        return json.load(response)["predictions"]


# Without JavaScript


@pytest.fixture(scope="module")
def plain_chrome(start_chromium: Any) -> Chrome:
    chrome: Chrome = start_chromium("--blink-settings=scriptEnabled=false")
    look(chrome, 1280, 900)
    return chrome


def test_the_form_works_without_javascript(plain_chrome: Chrome, page_server: str) -> None:
    plain_chrome.get(page_server)
    plain_chrome.find_element("id", "file").send_keys(str(STREET))
    plain_chrome.find_element("css selector", "noscript button, .plain button").click()
    until(lambda: plain_chrome.find_elements("css selector", ".outcome tbody tr"))
    picture = plain_chrome.find_element("css selector", ".outcome img")
    assert str(picture.get_attribute("src")).startswith("data:image/")
    assert picture.size["width"] > 500
    assert "person" in plain_chrome.find_element("css selector", ".outcome table").text


def test_a_failure_without_javascript_can_be_read(plain_chrome: Chrome, page_server: str) -> None:
    plain_chrome.get(page_server)
    plain_chrome.find_element("id", "url").send_keys("http://10.0.0.1/photo.jpg")
    plain_chrome.find_element("css selector", ".plain button").click()
    until(lambda: plain_chrome.find_elements("css selector", ".outcome .failed"))
    assert "url_refused" in plain_chrome.find_element("css selector", ".failed").text


# What the page is made of


def test_nothing_is_loaded_from_elsewhere_and_the_console_stays_empty(chrome: Chrome, page_server: str) -> None:
    chrome.get(page_server)
    upload(chrome, STREET)
    ask_url(chrome, f"{page_server}static/samples/chelsea.jpg", "done")
    arrived(chrome)
    chrome.find_element("id", "download").click()
    sent = [url for url in requests_sent(chrome) if urlsplit(url).scheme in ("http", "https", "ws", "wss")]
    assert {urlsplit(url).netloc for url in sent} == {urlsplit(page_server).netloc}
    assert [entry["message"] for entry in chrome.get_log("browser")] == []


def test_html_css_and_scripts_of_a_visit_stay_small(chrome: Chrome) -> None:
    script = """return [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
        .filter((e) => /(\\/|css|js)$/.test(e.name)).map((e) => e.decodedBodySize)"""
    sizes = chrome.execute_script(script)
    assert len(sizes) >= 5
    assert sum(sizes) < PAGE_BYTES


@pytest.mark.parametrize("width", [320, 390, 768])
def test_no_width_scrolls_sideways(chrome: Chrome, width: int) -> None:
    look(chrome, width, 700)
    over = "return document.documentElement.scrollWidth - innerWidth"
    assert chrome.execute_script(over) <= 0
    upload(chrome, STREET)
    assert chrome.execute_script(over) <= 0
    ask_url(chrome, "http://10.0.0.1/" + "long" * 60, "failing")
    assert chrome.execute_script(over) <= 0


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_colours_follow_the_system(chrome: Chrome, scheme: str, dark: bool) -> None:
    look(chrome, 1280, 900, scheme)
    script = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    ground, ink = (sum(map(int, colour.strip("rgb()").split(","))) for colour in chrome.execute_script(script))
    assert (ground < ink) is dark


def test_the_page_works_behind_a_path_prefix(shared_chromium: Chrome, prefixed_server: str) -> None:
    visit(shared_chromium, prefixed_server)
    shared_chromium.find_element("css selector", "#samples a").click()
    arrived(shared_chromium)
    assert all("/lens/" in url for url in requests_sent(shared_chromium) if url.startswith("http"))
    assert "/lens/predict" in text(shared_chromium, "#curl")


def test_a_grey_png_is_fine(chrome: Chrome, tmp_path: Path) -> None:
    with Image.open(STREET) as photo:
        photo.convert("L").save(tmp_path / "grey.png")
    upload(chrome, tmp_path / "grey.png")
    assert visible(chrome, "#boxes .box") > 2
