"""Every task on the page, in a real browser against the real models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from tests import servers
from tests.browser import STREET, arrived, ask_url, look, ready_server, requests_sent, text, until, upload, visible

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.chromium

OBJECTS, OUTLINES, PROMPTS, LARGER = (
    "detection",
    "instance-segmentation",
    "promptable-segmentation",
    "super-resolution",
)
COFFEE = STREET.with_name("coffee.jpg")  # 600 x 400
CHELSEA = STREET.with_name("chelsea.jpg")  # 451 x 300
CUP, SAUCER_EDGE, TABLE = (290, 110), (190, 250), (30, 20)
GOLDEN_RUNS = json.loads((servers.ROOT / "tests/data/masks.json").read_text(encoding="utf-8"))["runs"]


# What a person would do


def pick(chrome: Chrome, task: str) -> None:
    chrome.execute_script("document.querySelector(`input[name=task][value='${arguments[0]}']`).click()", task)


def opened(chrome: Chrome, task: str, photo: Path) -> Chrome:
    pick(chrome, task)
    upload(chrome, photo)
    settled(chrome)
    return chrome


def settled(chrome: Chrome) -> None:
    until(lambda: chrome.execute_script("return document.getElementById('progress').hidden"), 60)
    arrived(chrome)


def at(chrome: Chrome, x: float, y: float) -> Any:
    """An ActionChains with the pointer over a pixel of the photo."""
    from selenium.webdriver import ActionChains

    frame = chrome.find_element("id", "frame")
    width, height = photo_size(chrome)
    across, down = frame.size["width"] * (x / width - 0.5), frame.size["height"] * (y / height - 0.5)
    return ActionChains(chrome, duration=20).move_to_element_with_offset(frame, round(across), round(down))


def photo_size(chrome: Chrome) -> tuple[int, int]:
    width, height = text(chrome, "#caption").split(" · ")[1].split(" × ")
    return int(width), int(height)


def click(chrome: Chrome, place: tuple[float, float]) -> None:
    """A click, and the answer to it."""
    before = answers(chrome)
    at(chrome, *place).click().perform()
    until(lambda: answers(chrome) > before)


def answers(chrome: Chrome) -> int:
    """How many requests for a prediction have been answered."""
    script = """return performance.getEntriesByType('resource')
        .filter((e) => /predict/.test(e.name) && e.responseEnd).length"""
    count = int(chrome.execute_script(script))
    shown = chrome.execute_script("return document.getElementById('progress').hidden")
    return count if shown else -1


def press(chrome: Chrome, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(chrome, duration=0).send_keys(key).perform()


def button(chrome: Chrome, named: str) -> Any:
    return next(each for each in chrome.find_elements("css selector", "#tools button") if each.text == named)


def painted(chrome: Chrome, place: tuple[float, float]) -> int:
    """How opaque the masks are over a pixel of the photo, 0 to 255, once the screen has been painted."""
    script = """const [x, y, done] = arguments;
        requestAnimationFrame(() => requestAnimationFrame(() => {
          const canvas = document.querySelector('.masks');
          const at = (part, whole) => Math.floor(part * whole);
          done(canvas.getContext('2d').getImageData(at(x, canvas.width), at(y, canvas.height), 1, 1).data[3]);
        }))"""
    width, height = photo_size(chrome)
    return int(chrome.execute_async_script(script, place[0] / width, place[1] / height))


def sent(chrome: Chrome) -> list[dict[str, Any]]:
    """The parameters of the requests for a prediction since the last look."""
    queries = [urlsplit(url).query for url in requests_sent(chrome) if "predict" in url]
    return [{name: _json(values[0]) for name, values in parse_qs(query).items()} for query in queries]


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def lit(chrome: Chrome, where: str) -> list[str]:
    script = "return [...document.querySelectorAll(`${arguments[0]} .on`)].map((e) => e.dataset.i)"
    found: list[str] = chrome.execute_script(script, where)
    return found


# The picker


def test_every_task_is_offered_and_the_default_models_is_picked(chrome: Chrome) -> None:
    script = "return [...document.querySelectorAll('input[name=task]')].map((e) => [e.value, e.checked])"
    expected = [[OBJECTS, True], [OUTLINES, False], [PROMPTS, False], [LARGER, False]]
    assert chrome.execute_script(script) == expected


def test_another_task_says_what_it_does(chrome: Chrome) -> None:
    pick(chrome, LARGER)
    assert text(chrome, "#title") == "Make a photo larger"


def test_another_task_is_asked_about_the_same_photo(chrome: Chrome) -> None:
    upload(chrome, COFFEE)
    pick(chrome, OUTLINES)
    until(lambda: text(chrome, "#rows thead").split()[-2:] == ["Area", "px"])
    settled(chrome)
    assert text(chrome, "#caption") == "coffee.jpg · 600 × 400"


def test_the_arrow_keys_pick_a_task(chrome: Chrome) -> None:
    from selenium.webdriver import Keys

    chrome.execute_script("document.querySelector('input[name=task]').focus()")
    press(chrome, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert chrome.execute_script("return document.activeElement.value") == PROMPTS


def test_parameters_have_fields_of_their_kinds(chrome: Chrome) -> None:
    pick(chrome, PROMPTS)
    chrome.find_element("css selector", "#options summary").click()
    until(lambda: chrome.find_elements("css selector", "#parameters [name=sort_by]"))
    script = """const kind = (e) => e.localName === 'select' ? [...e.options].map((o) => o.value) : [e.type, e.max];
        return Object.fromEntries([...document.querySelectorAll('#parameters [name]')].map((e) => [e.name, kind(e)]))"""
    fields = chrome.execute_script(script)
    assert fields["sort_by"] == ["", "area"]
    assert fields["pred_iou_thresh"] == ["number", "1"]
    assert fields["render_factor"] == ["text", ""]
    assert not fields.keys() & {"points", "box", "embedding", "mask_input", "mask_format"}


# Masks


def test_run_lengths_are_read_as_pycocotools_writes_them(chrome: Chrome) -> None:
    script = """const [masks, done] = arguments;
        import('./static/masks.js').then(({ rasterise }) => done(masks.map(({ size: [height, width], counts }) => {
          const ids = new Uint8Array(width * height);
          rasterise({ size: [height, width], counts }, ids, width, height, 1);
          return Array.from({ length: height }, (_, y) => ids.slice(y * width, (y + 1) * width).join(''));
        })))"""
    cases = [{"size": case["size"], "counts": case["counts"]} for case in GOLDEN_RUNS]
    assert chrome.execute_async_script(script, cases) == [case["rows"] for case in GOLDEN_RUNS]


def test_a_mask_can_be_drawn_at_another_size(chrome: Chrome) -> None:
    script = """const done = arguments[0];
        import('./static/masks.js').then(({ rasterise }) => {
          const ids = new Uint8Array(4 * 8);
          rasterise({ size: [2, 4], counts: '224' }, ids, 8, 4, 1);
          done(Array.from({ length: 4 }, (_, y) => ids.slice(y * 8, y * 8 + 8).join('')));
        })"""
    assert chrome.execute_async_script(script) == ["00110000", "00110000", "00110000", "00110000"]


def test_each_object_has_its_mask_on_the_photo(chrome: Chrome) -> None:
    opened(chrome, OUTLINES, COFFEE)
    assert "cup" in text(chrome, "#summary")
    assert painted(chrome, CUP) > 0
    assert visible(chrome, "#boxes .box") == visible(chrome, "#rows tbody tr") > 0


def test_a_mask_under_the_pointer_lights_its_row(chrome: Chrome) -> None:
    opened(chrome, OUTLINES, COFFEE)
    before = painted(chrome, CUP)
    at(chrome, *CUP).perform()
    assert lit(chrome, "#rows") == lit(chrome, "#boxes")
    assert len(lit(chrome, "#rows")) == 1
    assert painted(chrome, CUP) > before


def test_a_row_in_focus_lights_its_mask(chrome: Chrome) -> None:
    opened(chrome, OUTLINES, COFFEE)
    before = painted(chrome, CUP)
    chrome.execute_script("document.querySelector('#rows tbody tr').focus()")
    assert painted(chrome, CUP) > before


def test_masks_fade_down_to_their_outline(chrome: Chrome) -> None:
    opened(chrome, OUTLINES, COFFEE)
    script = "const o = document.getElementById('opacity'); o.value = 0; o.dispatchEvent(new Event('input'))"
    chrome.execute_script(script)
    opaque = """const c = document.querySelector('.masks');
        const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
        return data.filter((part, i) => i % 4 === 3 && part).length"""
    assert painted(chrome, CUP) == 0
    assert chrome.execute_script(opaque) > 100


def test_the_slider_hides_masks_too(chrome: Chrome) -> None:
    opened(chrome, OUTLINES, COFFEE)
    script = "const s = document.getElementById('score'); s.value = 1; s.dispatchEvent(new Event('input'))"
    chrome.execute_script(script)
    assert painted(chrome, CUP) == visible(chrome, "#rows tbody tr") == 0


# Prompts


def test_a_click_cuts_out_what_is_under_it(chrome: Chrome) -> None:
    opened(chrome, PROMPTS, COFFEE)
    assert painted(chrome, CUP) == 0
    click(chrome, CUP)
    assert painted(chrome, CUP) > 0
    assert painted(chrome, TABLE) == 0
    assert text(chrome, "#count").startswith("Score 0.9") or text(chrome, "#count").startswith("Score 1.0")


def test_a_click_needs_no_encoder_any_more(chrome: Chrome, tmp_path: Path) -> None:
    opened(chrome, PROMPTS, unseen(tmp_path))
    assert "encode" in text(chrome, "#timings")
    click(chrome, CUP)
    assert "encode" not in text(chrome, "#timings")
    assert "infer" in text(chrome, "#timings")


def unseen(folder: Path) -> Path:
    """A photo that no test has sent before."""
    unseen = folder / "unseen.png"
    with Image.open(COFFEE) as photo:
        photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(unseen)
    return unseen


def test_one_click_gives_masks_to_choose_from_the_best_first(chrome: Chrome) -> None:
    opened(chrome, PROMPTS, COFFEE)
    click(chrome, CUP)
    script = "return [...document.querySelectorAll('.choices label')].map((e) => parseFloat(e.innerText))"
    scores = chrome.execute_script(script)
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_another_choice_shows_another_mask(chrome: Chrome) -> None:
    from selenium.webdriver import Keys

    opened(chrome, PROMPTS, COFFEE)
    click(chrome, CUP)
    before = text(chrome, "#summary")
    chrome.execute_script("document.querySelector('.choices input').focus()")
    press(chrome, Keys.ARROW_RIGHT)
    assert text(chrome, "#summary") != before
    assert chrome.execute_script("return document.activeElement.value") == "1"


@pytest.mark.parametrize("way", ["right click", "alt click", "tool"])
def test_a_place_can_be_taken_away(chrome: Chrome, way: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    opened(chrome, PROMPTS, COFFEE)
    click(chrome, CUP)
    sent(chrome)
    before = answers(chrome)
    if way == "right click":
        at(chrome, *SAUCER_EDGE).context_click().perform()
    elif way == "alt click":
        at(chrome, *SAUCER_EDGE).key_down(Keys.ALT).click().perform()
        ActionChains(chrome).key_up(Keys.ALT).perform()
    else:
        chrome.execute_script("document.querySelector('input[name=tool][value=take]').click()")
        at(chrome, *SAUCER_EDGE).click().perform()
    until(lambda: answers(chrome) > before)
    assert sent(chrome)[-1]["point_labels"] == [1, 0]
    assert visible(chrome, ".dot.minus") == 1


def test_a_drag_is_a_box(chrome: Chrome) -> None:
    opened(chrome, PROMPTS, COFFEE)
    sent(chrome)
    before = answers(chrome)
    frame = chrome.find_element("id", "frame")
    scale = frame.size["width"] / 600
    at(chrome, 160, 10).click_and_hold().move_by_offset(round(260 * scale), round(260 * scale)).release().perform()
    until(lambda: answers(chrome) > before)
    assert sent(chrome)[-1]["box"] == pytest.approx([160, 10, 420, 270], abs=2)
    assert painted(chrome, CUP) > 0
    assert visible(chrome, ".rubber") == 1


def test_undo_and_clear_take_prompts_back(chrome: Chrome) -> None:
    opened(chrome, PROMPTS, COFFEE)
    click(chrome, CUP)
    click(chrome, SAUCER_EDGE)
    sent(chrome)
    before = answers(chrome)
    button(chrome, "Undo").click()
    until(lambda: answers(chrome) > before)
    assert len(sent(chrome)[-1]["points"]) == visible(chrome, ".dot") == 1
    button(chrome, "Clear").click()
    assert visible(chrome, ".dot") == painted(chrome, CUP) == 0
    assert sent(chrome) == []


def test_the_keyboard_alone_can_prompt(chrome: Chrome) -> None:
    from selenium.webdriver import Keys

    opened(chrome, PROMPTS, COFFEE)
    sent(chrome)
    before = answers(chrome)
    chrome.execute_script("document.getElementById('frame').focus()")
    press(chrome, *[Keys.ARROW_UP] * 4, Keys.ENTER)
    until(lambda: answers(chrome) > before)
    assert sent(chrome)[-1]["points"] == [[300, 155]]
    assert "Score" in text(chrome, "#announce")
    press(chrome, Keys.BACKSPACE)
    assert visible(chrome, ".dot") == 0


def test_a_click_while_the_photo_is_read_waits_for_that(chrome: Chrome, tmp_path: Path) -> None:
    pick(chrome, PROMPTS)
    chrome.find_element("id", "file").send_keys(str(unseen_too(tmp_path)))
    until(lambda: visible(chrome, ".frame.prompted"))
    until(lambda: chrome.execute_script("return document.getElementById('picture').naturalWidth") == 600)
    script = """const frame = document.getElementById('frame'), { left, top } = frame.getBoundingClientRect();
        for (const type of ['pointerdown', 'pointerup'])
          frame.dispatchEvent(new PointerEvent(type, { clientX: left + 99, clientY: top + 99, isPrimary: true }))"""
    chrome.execute_script(script)
    until(lambda: "Score" in text(chrome, "#count") or "No mask" in text(chrome, "#count"), 30)
    first, second = sent(chrome)
    assert first["points"] == [[0, 0]]
    assert second["point_labels"] == [1]


def unseen_too(folder: Path) -> Path:
    unseen = folder / "unseen-too.png"
    with Image.open(COFFEE) as photo:
        photo.transpose(Image.Transpose.ROTATE_180).save(unseen)
    return unseen


def test_of_quick_clicks_the_last_answer_is_shown(chrome: Chrome) -> None:
    opened(chrome, PROMPTS, COFFEE)
    sent(chrome)
    script = """const frame = document.getElementById('frame'), { left, top } = frame.getBoundingClientRect();
        for (const far of [200, 210, 220, 230]) for (const type of ['pointerdown', 'pointerup'])
          frame.dispatchEvent(new PointerEvent(type, { clientX: left + far, clientY: top + 99, isPrimary: true }))"""
    chrome.execute_script(script)
    until(lambda: "Score" in text(chrome, "#count"))
    settled(chrome)
    assert len(sent(chrome)[-1]["points"]) == visible(chrome, ".dot") == 4


def test_everything_is_found_and_each_can_be_pointed_at(chrome: Chrome) -> None:
    opened(chrome, PROMPTS, COFFEE)
    chrome.find_element("css selector", "#options summary").click()
    until(lambda: chrome.find_elements("css selector", "#parameters [name=points_per_side]"))
    chrome.find_element("css selector", "#parameters [name=points_per_side]").send_keys("6\t")
    chrome.find_element("css selector", "#options summary").click()
    button(chrome, "Find everything").click()
    until(lambda: visible(chrome, "#rows tbody tr") > 3, 60)
    assert text(chrome, "#count") == f"{visible(chrome, '#rows tbody tr')} masks"
    at(chrome, *CUP).perform()
    until(lambda: lit(chrome, "#rows") == lit(chrome, "#boxes") != [])


def test_a_photo_by_address_can_be_prompted(chrome: Chrome, page_server: str) -> None:
    pick(chrome, PROMPTS)
    ask_url(chrome, f"{page_server}static/samples/coffee.jpg", "done")
    assert chrome.execute_script("return document.getElementById('picture').naturalWidth") == 600
    click(chrome, CUP)
    assert painted(chrome, CUP) > 0


# Larger


def test_the_enlarged_photo_lies_over_its_bicubic_twin(chrome: Chrome) -> None:
    opened(chrome, LARGER, CHELSEA)
    script = "return [...document.querySelectorAll('.compare img')].map((e) => [e.naturalWidth, e.naturalHeight])"
    until(lambda: chrome.execute_script(script) == [[1804, 1200], [1804, 1200]])
    assert text(chrome, "#count") == "1804 × 1200"


def test_the_arrow_keys_move_the_line_between_before_and_after(chrome: Chrome) -> None:
    from selenium.webdriver import Keys

    opened(chrome, LARGER, CHELSEA)
    clip = "return parseFloat(document.querySelector('.after').style.clipPath.split(' ').at(-1))"
    half = chrome.execute_script(clip)
    assert half == pytest.approx(chrome.find_element("id", "frame").size["width"] / 2, abs=1)
    chrome.execute_script("document.querySelector('.compare input').focus()")
    press(chrome, *[Keys.ARROW_LEFT] * 5)
    assert chrome.execute_script(clip) == pytest.approx(half * 0.9, abs=1)


def test_the_line_can_be_dragged(chrome: Chrome) -> None:
    opened(chrome, LARGER, CHELSEA)
    at(chrome, 225, 150).click_and_hold().move_by_offset(-100, 0).release().perform()
    clip = "return parseFloat(document.querySelector('.after').style.clipPath.split(' ').at(-1))"
    expected = chrome.find_element("id", "frame").size["width"] / 2 - 100
    assert chrome.execute_script(clip) == pytest.approx(expected, abs=8)


def test_another_scale_is_asked_for(chrome: Chrome) -> None:
    opened(chrome, LARGER, CHELSEA)
    chrome.execute_script("document.querySelector('input[name=scale][value=\"2\"]').click()")
    until(lambda: text(chrome, "#count") == "902 × 600", 30)


def test_at_full_size_a_pixel_is_a_pixel(chrome: Chrome) -> None:
    opened(chrome, LARGER, CHELSEA)
    chrome.find_element("id", "zoom").click()
    assert chrome.execute_script("return document.querySelector('.after').getBoundingClientRect().width") == 1804


# Downloads


@pytest.fixture
def downloads(shared_chromium: Chrome, tmp_path: Path) -> Path:
    """The folder that downloads go to."""
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path)}
    shared_chromium.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    return tmp_path


@pytest.mark.parametrize(
    ("task", "name", "size"),
    [
        (OBJECTS, "coffee-objects.jpeg", (600, 400)),
        (OUTLINES, "coffee-outlines.jpeg", (600, 400)),
        (PROMPTS, "coffee-masks.jpeg", (600, 400)),
        (LARGER, "coffee-enlarged.jpeg", (2400, 1600)),
    ],
)
def test_the_json_and_the_picture_can_be_downloaded(
    chrome: Chrome, downloads: Path, task: str, name: str, size: tuple[int, int]
) -> None:
    opened(chrome, task, COFFEE)
    if task == PROMPTS:
        click(chrome, CUP)
    chrome.find_element("id", "download").click()
    until((downloads / "coffee.json").exists)
    chrome.find_element("id", "download-picture").click()
    until((downloads / name).exists)
    reply = json.loads((downloads / "coffee.json").read_text(encoding="utf-8"))
    assert (reply["task"], bool(reply["predictions"])) == (task, True)
    with Image.open(downloads / name) as picture:
        assert picture.size == size


# In every task


@pytest.mark.parametrize("task", [OUTLINES, PROMPTS, LARGER])
def test_the_console_stays_empty_and_nothing_comes_from_elsewhere(chrome: Chrome, page_server: str, task: str) -> None:
    opened(chrome, task, COFFEE)
    fetched = [url for url in requests_sent(chrome) if urlsplit(url).scheme in ("http", "https", "ws", "wss")]
    assert {urlsplit(url).netloc for url in fetched} == {urlsplit(page_server).netloc}
    assert [entry["message"] for entry in chrome.get_log("browser")] == []


@pytest.mark.parametrize("task", [OUTLINES, PROMPTS, LARGER])
@pytest.mark.parametrize("width", [320, 390])
def test_no_task_scrolls_sideways(chrome: Chrome, task: str, width: int) -> None:
    look(chrome, width, 700)
    opened(chrome, task, COFFEE)
    assert chrome.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize("task", [OUTLINES, PROMPTS, LARGER])
def test_every_field_of_a_task_has_a_name(chrome: Chrome, task: str) -> None:
    opened(chrome, task, COFFEE)
    chrome.find_element("css selector", "#options summary").click()
    until(lambda: chrome.find_elements("css selector", "#parameters [name=render_factor]"))
    script = """return [...document.querySelectorAll('input, select, button')]
        .filter((e) => !e.labels?.length && !e.textContent.trim() && !e.ariaLabel).map((e) => e.outerHTML)"""
    assert chrome.execute_script(script) == []


@pytest.mark.parametrize("task", [OUTLINES, PROMPTS, LARGER])
def test_a_file_that_is_no_picture_is_explained_in_every_task(chrome: Chrome, tmp_path: Path, task: str) -> None:
    (tmp_path / "letter.txt").write_text("Dear model")
    pick(chrome, task)
    upload(chrome, tmp_path / "letter.txt", "failing")
    assert "415 · not_an_image" in text(chrome, "#failure")


# Without JavaScript


@pytest.fixture(scope="module")
def plain_chrome(start_chromium: Any) -> Chrome:
    chrome: Chrome = start_chromium("--blink-settings=scriptEnabled=false")
    look(chrome, 1280, 900)
    return chrome


@pytest.fixture(scope="module")
def prompting_server() -> Iterator[str]:
    yield from ready_server({"THINLENS_MODEL": "mobile-sam"})


@pytest.fixture(scope="module")
def enlarging_server() -> Iterator[str]:
    yield from ready_server({"THINLENS_MODEL": "esrgan-slim"})


def posted(chrome: Chrome, base: str, fields: dict[str, str]) -> None:
    chrome.get(base)
    chrome.find_element("id", "file").send_keys(str(COFFEE))
    for name, value in fields.items():
        chrome.find_element("id", name).send_keys(value)
    chrome.find_element("css selector", ".plain button").click()
    until(lambda: chrome.find_elements("css selector", ".outcome h1"), 60)


def test_a_point_can_be_given_without_javascript(plain_chrome: Chrome, prompting_server: str) -> None:
    posted(plain_chrome, prompting_server, {"points": "[[290, 110]]"})
    assert plain_chrome.find_element("css selector", ".outcome h1").text == "3 masks"
    assert plain_chrome.find_element("css selector", ".outcome thead").text.split()[:2] == ["Score", "Area"]


def test_a_photo_is_enlarged_without_javascript(plain_chrome: Chrome, enlarging_server: str) -> None:
    posted(plain_chrome, enlarging_server, {"scale": "2"})
    assert plain_chrome.find_element("css selector", ".outcome h1").text == "1200 × 800"
    picture = plain_chrome.find_element("css selector", ".outcome img")
    assert picture.get_attribute("naturalWidth") == "1200"
