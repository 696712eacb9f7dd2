"""The grid of thumbnails: no picture or caption leaves its place."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from hmgr_jax.reports import fonts, grid
from hmgr_jax.reports.grid import Thumbnail, bullets, draw_grid, shorten, wrap

LONG = "a caption of many words that costs $5 and has to be wrapped " * 3


def _picture(height, width):
    return np.full((height, width, 3), (200, 30, 30), np.uint8)


def test_captions_stay_in_their_columns_and_rows(tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr(grid.Page, "save", lambda page, path: pages.append(page))
    below = wrap(LONG, 32, 4)
    rows = [
        [Thumbnail(words=LONG, below="$\\alpha$ query"), Thumbnail(_picture(20, 40), below=below)],
        [Thumbnail(_picture(40, 20), above="second", below=below)],
    ]
    draw_grid(tmp_path / "no.png", rows, side=1.7, above=0.2, below=0.7, headings={0: "title"})
    (page,) = pages
    renderer = FigureCanvasAgg(page.figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in page.figure.texts if text.get_text()]
    boxes += [axes.get_window_extent(renderer) for axes in page.figure.axes]
    assert (
        len(boxes) == 1 + 2 + 3 + 3
    )  # title; words and below of the query; three captions; panels
    words = boxes[1]
    for number, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= page.figure.bbox.x1
        assert 0 <= box.y0 < box.y1 <= page.figure.bbox.y1
        for other in boxes[:number]:
            if words in (box, other):  # words lie inside of their panel
                continue
            assert not box.overlaps(other)


def test_a_picture_is_centred_on_white_with_its_boxes(tmp_path):
    shown = Thumbnail(_picture(20, 40), boxes=[(0, 0, 40, 20)])
    path = draw_grid(tmp_path / "grid.png", [[shown]], side=2)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), int)
    red = (np.abs(pixels - (200, 30, 30)).max(axis=2) < 10).any(axis=1)
    assert red[: len(red) // 4].sum() < 5
    assert red[len(red) * 3 // 8 : len(red) * 5 // 8].all()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("letters", "shown"), [(5, "abcd…"), (6, "abcdef")])
def test_long_names_are_cut(letters, shown):
    assert shorten("abcdef", letters) == shown


def test_every_text_has_a_bullet():
    assert bullets(["one two", "three"], 7) == "• one\n   two\n• three"


CHINESE = "两只狗在海滩上奔跑"


def test_a_wide_character_takes_the_room_of_two():
    lines = wrap(CHINESE, 8).splitlines()
    assert lines == ["两只狗在", "海滩上奔", "跑"]
    assert wrap("two dogs", 8) == "two dogs"


def test_characters_are_drawn_in_a_font_that_has_them(tmp_path, monkeypatch):
    """A font file of Matplotlib's stands for one with Chinese characters."""
    monkeypatch.setattr(fonts, "_font_of", {"é": fonts.OWN, "狗": "DejaVu Serif"}.get)
    monkeypatch.setattr(fonts, "_missing", set())
    assert fonts.families("é 狗") == [fonts.OWN, "DejaVu Serif"]
    with pytest.warns(RuntimeWarning, match=r"no installed font has '.', so boxes"):
        draw_grid(tmp_path / "a.png", [[Thumbnail(words=CHINESE)]], side=1.7)
    draw_grid(tmp_path / "a.png", [[Thumbnail(words=CHINESE)]], side=1.7)  # warns once


def test_the_own_font_comes_first():
    assert fonts.families("plain, é ▲ …") == [fonts.OWN]
    assert not (fonts._font_of("\ue000") or "").startswith(fonts.BOXES)
