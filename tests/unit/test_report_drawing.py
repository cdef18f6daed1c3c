from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac_distill.report.contact_sheet import Panel, SheetRow, around, contact_sheet, overlay_png
from deepmac_distill.report.drawing import PALETTE, Overlay, color_of, draw_overlays, draw_window

HEIGHT, WIDTH = 80, 120
GRAY = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
MASK = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
MASK[20:60, 30:90] = 1
COUNTS = coco_mask.encode(MASK)["counts"]
RED = (255, 0, 0)


def test_a_mask_colors_its_inside_outlines_it_and_leaves_the_rest() -> None:
    picture = np.asarray(draw_overlays(GRAY, [Overlay(RED, COUNTS)])).astype(int)
    assert picture.shape == GRAY.shape
    far = np.ones((HEIGHT, WIDTH), bool)
    far[17:63, 27:93] = False
    assert (picture[far] == 128).all()
    inside, edge = picture[40, 60], picture[20, 60]
    assert inside[0] > 160 and 40 < inside[1] < 110  # red over a photograph that shows through
    assert edge[0] > inside[0] and edge[1] < inside[1]  # the outline is stronger than the inside


def test_an_empty_mask_and_no_overlays_change_nothing() -> None:
    empty = coco_mask.encode(np.zeros_like(MASK))["counts"]
    assert np.array_equal(np.asarray(draw_overlays(GRAY, [Overlay(RED, empty)])), GRAY)
    assert np.array_equal(np.asarray(draw_overlays(GRAY, [])), GRAY)


def test_a_box_is_drawn_on_its_border_only() -> None:
    picture = np.asarray(draw_overlays(GRAY, [Overlay(RED, box=(30, 20, 90, 60))]))
    for y, x in ((20, 60), (59, 60), (40, 30), (40, 89)):
        assert tuple(picture[y, x]) == RED
    assert (picture[25:55, 35:85] == 128).all()


def test_input_image_is_not_written_to() -> None:
    image = GRAY.copy()
    image.flags.writeable = False
    draw_overlays(image, [Overlay(RED, COUNTS, (30, 20, 90, 60), "cat 0.93")])


def test_a_window_shows_its_part_of_image_and_mask_enlarged() -> None:
    picture = np.asarray(draw_window(GRAY, [Overlay(RED, COUNTS)], (60, 0, 120, 40), 240)).astype(int)
    assert picture.shape == (160, 240, 3)
    assert picture[120, 40, 0] > 160 and (picture[:60] == 128).all() and (picture[:, 150:] == 128).all()


@pytest.mark.parametrize("window", [(-50, -50, 10, 10), (119.5, 79.5, 119.6, 79.6), (200, 200, 300, 300)])
def test_a_window_over_the_edge_still_gives_a_picture(window: tuple[float, ...]) -> None:
    assert max(draw_window(GRAY, [], window, 50).size) == 50


def test_an_overlay_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a mask nor a box"):
        Overlay(RED)


def test_window_around_a_box_holds_it_and_stays_in_the_image() -> None:
    for box in ((0, 0, 4, 4), (100, 60, 120, 80), (0, 0, 120, 80), (50, 10, 60, 70)):
        x1, y1, x2, y2 = around(box, HEIGHT, WIDTH)
        assert 0 <= x1 <= box[0] and 0 <= y1 <= box[1] and box[2] <= x2 <= WIDTH and box[3] <= y2 <= HEIGHT


def test_colors_repeat_and_neighbors_differ() -> None:
    assert color_of(0) == color_of(len(PALETTE)) != color_of(1)
    assert len(set(PALETTE)) == len(PALETTE)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def row(caption: str, window: tuple[float, float, float, float] | None = None) -> SheetRow:
    given = Panel([Overlay(RED, box=(30, 20, 90, 60), label="cat")])
    return SheetRow(
        GRAY, {"given box": given, "teacher": Panel([Overlay(RED, COUNTS)], "IoU 0.83")}, caption, window
    )


def test_sheet_has_a_strip_for_every_row_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name, rows in {"one": [row("a")], "two": [row("a"), row("b", (20, 10, 100, 70))]}.items():
        contact_sheet(rows, tmp_path / f"{name}.png", "Unseen classes")
    contact_sheet([row("a")], tmp_path / "again.png", "Unseen classes")
    one, two = (opened(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert one.format == "PNG" and one.mode == "RGB"
    assert one.width == two.width and two.height > one.height + 150
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.png", "one.png", "two.png"]


def test_a_note_has_a_line_of_its_own_and_long_words_make_the_sheet_wider(tmp_path: Path) -> None:
    long = "as many words as no two panels side by side are wide " * 2
    contact_sheet([row("a")], tmp_path / "plain.png", "Title")
    contact_sheet([row("a")], tmp_path / "note.png", "Title", "a note")
    contact_sheet([row("a")], tmp_path / "long_note.png", "Title", long)
    contact_sheet([row(long)], tmp_path / "long_caption.png", "Title")
    plain, note, long_note, long_caption = (
        opened(tmp_path / f"{name}.png") for name in ("plain", "note", "long_note", "long_caption")
    )
    assert note.width == plain.width and note.height > plain.height
    assert long_note.size == (long_note.width, note.height) and long_note.width > plain.width
    assert long_caption.size == (long_caption.width, plain.height) and long_caption.width > plain.width
    for sheet in (long_note, long_caption):  # nothing is cut off at the edge
        assert (np.asarray(sheet)[:, -8:] == 255).all()


def test_rows_with_other_columns_and_no_rows_are_refused(tmp_path: Path) -> None:
    other = SheetRow(GRAY, {"truth": Panel([])})
    for rows in ([], [row("a"), other], [SheetRow(GRAY, {})]):
        with pytest.raises(ValueError, match="the same columns in each row"):
            contact_sheet(rows, tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_overlay_png_has_the_size_of_the_image(tmp_path: Path) -> None:
    overlay_png(
        GRAY,
        [Overlay(RED, COUNTS, label="a name much too long for a picture as small as this")],
        tmp_path / "o.png",
    )
    assert opened(tmp_path / "o.png").size == (WIDTH, HEIGHT)
