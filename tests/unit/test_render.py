"""Boxes, labels and scores on the picture: where they should be, and readable."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow

from shared.errors import ImageUndecodable, NotAcceptable
from shared.predictions import Detection, Prediction
from shared.predictor import PictureFormat
from shared.render import colour, drawn, ink, luminance, placed, showable
from tests.hostile_pictures import photo, saved

PIXELS = 50_000_000
GREY = (90, 90, 90)


def plain(height: int, width: int) -> bytes:
    return saved(Pillow.new("RGB", (width, height), GREY), "PNG")


def shown(data: bytes, *found: Detection, format_: PictureFormat = "png") -> Pillow.Image:
    """The drawn picture, decoded."""
    return Pillow.open(BytesIO(drawn(data, Prediction((0, 0), found), format_, PIXELS)))


def box(*xyxy: float, label: str = "cat", class_id: int = 2, score: float = 0.5) -> Detection:
    x1, y1, x2, y2 = xyxy
    return Detection(label, class_id, score, (x1, y1, x2, y2))


def touched(image: Pillow.Image) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of what is not background any more."""
    rows, columns = np.nonzero((np.asarray(image) != GREY).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
def test_the_picture_comes_as_rgb_in_the_format_asked_for(format_: PictureFormat) -> None:
    image = shown(plain(400, 600), box(10, 10, 90, 90), format_=format_)
    assert (image.format, image.mode, image.size) == (format_.upper(), "RGB", (600, 400))


def test_without_predictions_the_picture_is_as_it_was() -> None:
    data = saved(photo(400, 600), "PNG")
    assert (np.asarray(shown(data)) == np.asarray(photo(400, 600))).all()


def test_the_line_runs_along_the_box_in_the_colour_of_the_class() -> None:
    image = shown(plain(400, 600), box(100, 200, 300, 350, class_id=7))
    assert [image.getpixel(at) for at in ((100, 300), (300, 300), (200, 350))] == [colour(7)] * 3
    assert image.getpixel((200, 300)) == GREY


def test_a_dark_line_runs_on_both_sides_of_the_coloured_one() -> None:
    row = np.asarray(shown(plain(400, 600), box(100, 100, 300, 350)))[300, 90:110]
    is_coloured = (row == colour(2)).all(axis=1)
    first, last = np.flatnonzero(is_coloured)[[0, -1]]
    assert row[first - 1].max() < 30
    assert row[last + 1].max() < 30


@pytest.mark.parametrize(
    "xyxy", [(0, 0, 600, 400), (0, 0, 5, 5), (595, 395, 600, 400), (-50, -50, 900, 900), (700, 500, 800, 600)]
)
def test_line_and_tag_stay_inside_and_are_seen_at_the_edges(xyxy: tuple[float, ...]) -> None:
    image = np.asarray(shown(plain(400, 600), box(*xyxy, label="something")))
    assert (image == colour(2)).all(axis=2).sum() > 100


@pytest.mark.parametrize("xyxy", [(50.2, 60.1, 50.4, 60.3), (300, 200, 100, 100), (200, 200, 200, 200)])
def test_a_box_of_no_size_is_still_shown(xyxy: tuple[float, ...]) -> None:
    assert touched(shown(plain(400, 600), box(*xyxy))) != (0, 0, 600, 400)


def test_a_turned_picture_is_drawn_on_upright() -> None:
    tags = Pillow.Exif()
    tags[0x0112] = 6
    data = saved(Pillow.new("RGB", (600, 400), GREY), "PNG", exif=tags)
    image = shown(data, box(100, 300, 300, 500))
    assert image.size == (400, 600)
    assert image.getpixel((200, 500)) == colour(2)
    assert not image.getexif()


# Sizes


@pytest.mark.parametrize(
    ("hw", "factor"), [((14, 24), 20), ((93, 160), 3), ((300, 319), 2), ((200, 320), 1), ((9, 800), 5)]
)
def test_a_small_picture_is_enlarged_by_a_whole_factor(hw: tuple[int, int], factor: int) -> None:
    image = shown(plain(*hw), box(2, 2, hw[1] - 2, hw[0] - 2))
    assert image.size == (hw[1] * factor, hw[0] * factor)


def test_boxes_grow_with_an_enlarged_picture() -> None:
    image = shown(plain(80, 100), box(40, 40, 60, 70))
    assert image.size == (500, 400)
    assert [image.getpixel(at) for at in ((200, 300), (300, 300), (250, 350))] == [colour(2)] * 3


@pytest.mark.parametrize("width", [320, 1600, 8000])
def test_a_tag_has_the_same_share_of_every_larger_picture(width: int) -> None:
    height = width // 2
    x1, y1, x2, y2 = touched(shown(plain(height, width), box(width / 2, height / 2, width / 2 + 2, height / 2 + 2)))
    assert y2 - y1 >= 12
    assert 0.015 < (y2 - y1) / width < 0.08
    assert (x2 - x1) / width < 0.25


@pytest.mark.parametrize("hw", [(1, 1), (1, 20_000), (20_000, 1), (8, 600), (3000, 7), (100, 8000)])
def test_pictures_of_any_shape_can_be_drawn_on(hw: tuple[int, int]) -> None:
    image = shown(plain(*hw), box(0, 0, hw[1], hw[0], label="a rather long label"))
    assert max(image.size) >= 320


@pytest.mark.parametrize(("format_", "longest"), [("webp", 16_383), ("jpeg", 65_500)])
def test_a_side_that_the_format_cannot_hold_is_not_acceptable(format_: PictureFormat, longest: int) -> None:
    assert shown(plain(1, longest), format_=format_).size == (longest, 1)
    with pytest.raises(NotAcceptable, match="ask for png") as caught:
        shown(plain(1, longest + 1), format_=format_)
    assert caught.value.figures == {"limit": longest, "found": longest + 1}


def test_a_damaged_picture_fails_as_elsewhere() -> None:
    with pytest.raises(ImageUndecodable):
        shown(plain(40, 40)[:60])


# Colours


def test_a_class_keeps_its_colour_and_near_classes_differ() -> None:
    assert colour(3) == colour(3)
    near = [(a, b) for a in range(90) for b in range(a + 1, a + 5)]
    assert all(sum(abs(x - y) for x, y in zip(colour(a), colour(b), strict=True)) > 100 for a, b in near)


@pytest.mark.parametrize("class_id", [*range(100), 10**9, -1])
def test_every_colour_stands_out_from_its_text_and_from_black(class_id: int) -> None:
    background = luminance(colour(class_id))
    text = luminance(ink(colour(class_id)))
    lighter, darker = max(background, text), min(background, text)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2.2, level AA
    assert background >= 0.15


def test_ink_is_black_on_light_and_white_on_dark() -> None:
    assert ink((255, 255, 0)) == (0, 0, 0)
    assert ink((0, 0, 120)) == (255, 255, 255)


# Labels


@pytest.mark.parametrize(
    ("label", "text"),
    [("traffic light", "traffic light"), ("café naïve", "cafe naive"), ("line\nbreak\ttab", "line break tab"),
     ("Straße", "Stra?e"), ("cat 猫", "cat ?"), ("猫", ""), ("кошка", ""), ("🐈", ""), ("", ""), ("\0", ""), ("-", "")],
)  # fmt: skip
def test_a_label_is_told_in_the_letters_that_there_are(label: str, text: str) -> None:
    assert showable(label) == text


@pytest.mark.parametrize("label", ["猫", "مرحبا", "🐈‍⬛", "a" * 100_000, "\ud800", "line\nbreak", "%s{}\0"])
def test_any_label_can_be_drawn(label: str) -> None:
    assert touched(shown(plain(400, 600), box(50, 100, 80, 130, label=label)))[2] <= 600


def test_a_long_label_is_shortened_and_keeps_its_score() -> None:
    short = touched(shown(plain(400, 600), box(5, 100, 8, 103, label="x")))
    long = touched(shown(plain(400, 600), box(5, 100, 8, 103, label="word " * 100)))
    assert long[3] == short[3]
    assert 200 < long[2] - long[0] <= 320


# Places

CANVAS = (600, 400)
SIZE = (100, 20)


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def test_a_tag_stands_above_its_box() -> None:
    assert placed([(200, 100, 300, 200)], [SIZE], CANVAS, gap=2) == [(198, 78, 298, 98)]


def test_a_tag_with_no_room_above_stands_inside_the_top() -> None:
    assert placed([(200, 5, 300, 200)], [SIZE], CANVAS, gap=2) == [(198, 7, 298, 27)]


def test_a_tag_that_would_leave_the_picture_is_moved_inside() -> None:
    assert placed([(560, 100, 600, 200)], [SIZE], CANVAS, gap=2) == [(500, 78, 600, 98)]


def test_a_second_tag_on_the_same_box_goes_elsewhere() -> None:
    boxes = [(200, 100, 300, 200)] * 4
    places = placed(boxes, [SIZE] * 4, CANVAS, gap=2)
    assert all(overlap(a, b) == 0 for i, a in enumerate(places) for b in places[:i])


def test_crowded_tags_stay_inside_and_cover_less_than_they_would_above_their_boxes() -> None:
    chance = np.random.default_rng(2)
    corners = [(int(x), int(y)) for x, y in chance.integers(0, 300, (40, 2))]
    boxes = [(x, y, x + 80, y + 60) for x, y in corners]
    places = placed(boxes, [SIZE] * 40, CANVAS, gap=2)
    above = [(x, max(0, y - 22), x + 100, max(0, y - 22) + 20) for x, y in corners]
    assert all(0 <= x1 < x2 <= 600 and 0 <= y1 < y2 <= 400 for x1, y1, x2, y2 in places)

    def covered(tags: list[tuple[int, int, int, int]]) -> int:
        return sum(overlap(a, b) for i, a in enumerate(tags) for b in tags[:i])

    assert covered(places) < covered(above) / 2


def test_the_better_of_two_predictions_is_on_top() -> None:
    image = shown(plain(400, 600), box(100, 100, 300, 300, class_id=1), box(100, 100, 300, 300, class_id=2))
    assert image.getpixel((100, 200)) == colour(1)


def test_a_thousand_predictions_are_drawn() -> None:
    chance = np.random.default_rng(4)
    found = [box(x, y, x + 40, y + 30) for x, y in chance.integers(0, 350, (1000, 2)).tolist()]
    assert shown(plain(400, 600), *found).size == (600, 400)
