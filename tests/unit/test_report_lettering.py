"""No name is drawn as empty boxes, and no picture is larger than anybody looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac_distill.report import contact_sheet as sheets
from deepmac_distill.report.contact_sheet import OVERLAY_PX, Panel, SheetRow, contact_sheet, overlay_png
from deepmac_distill.report.drawing import Overlay, draw_overlays
from deepmac_distill.report.lettering import ESCAPED, drawable, font, is_escaped


@pytest.mark.parametrize(
    "name", ["кот", "猫", "ヤク", "naïve ṥ", "😀", "a\tb\x01", "عربي", "plain (2) \\ 0.9"]
)
def test_what_is_drawn_has_glyphs(name: str) -> None:
    missing = bytes(font(20).getmask("\U0010ffff"))
    for character in drawable(name):
        mask = font(20).getmask(character)
        assert character == " " or (mask.getbbox() is not None and bytes(mask) != missing), character


def test_text_that_the_font_has_is_left_alone_and_escapes_are_unambiguous() -> None:
    plain = "".join(map(chr, range(32, 127)))
    assert drawable(plain) == plain and not is_escaped(plain)
    assert len({drawable(name) for name in ("кот", "кит", "猫", "犬")}) == 4


@pytest.mark.parametrize(("caption", "noted"), [("ヤク: 3 masks", True), ("yak: 3 masks", False)])
def test_a_sheet_states_that_names_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caption: str, noted: bool
) -> None:
    notes = []
    header = sheets._header
    monkeypatch.setattr(sheets, "_header", lambda *given: notes.append(given[2]) or header(*given))
    panel = Panel([Overlay((255, 0, 0), box=(1, 1, 8, 8))])
    row = SheetRow(np.zeros((9, 9, 3), np.uint8), {"a": panel}, caption)
    contact_sheet([row], tmp_path / "sheet.png", note="Seen.")
    assert notes == [f"Seen. {ESCAPED}" if noted else "Seen."]


def disk(height: int, width: int) -> bytes:
    y, x = np.mgrid[:height, :width]
    mask = np.hypot(x - 0.4 * width, y - 0.6 * height) < height / 4
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@pytest.mark.parametrize(("size", "expected"), [((2100, 2800), (2000, 1500)), ((60, 80), (80, 60))])
def test_an_overlay_is_as_large_as_anybody_looks_at(tmp_path: Path, size, expected: tuple[int, int]) -> None:
    image = np.full((*size, 3), 40, np.uint8)
    overlays = [Overlay((255, 0, 0), disk(*size))]
    overlay_png(image, overlays, tmp_path / "a.png", OVERLAY_PX)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == expected
        pixels = np.asarray(picture)
    width, height = expected
    assert (pixels[int(0.6 * height), int(0.4 * width)] != 40).any() and (pixels[2, -3] == 40).all()
    assert draw_overlays(image, overlays).size == size[::-1]
