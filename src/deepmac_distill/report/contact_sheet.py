"""One picture that shows what the numbers mean: a row an object or image, a column a way of seeing it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from deepmac_distill.files import written_whole
from deepmac_distill.report.drawing import Overlay, draw_overlays, draw_window
from deepmac_distill.report.lettering import ESCAPED, drawable, font, is_escaped

SOFTWARE = "deepmac-distill"  # the maker named in a picture
PANEL_PX = 260  # the longest side of a picture on the sheet
GAP_PX = 12
MARGIN_PX = 24
OVERLAY_PX = 2000  # the longest side of an overlay where nobody asks for the image's own
PHOTO_LEVEL = 3  # of compression: higher ones take seconds and save a few percent of a photograph
TITLE_PX, CAPTION_PX, NOTE_PX = 26, 17, 15  # font sizes
INK, FAINT, PAPER = (24, 28, 36), (104, 112, 124), (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a row: what is drawn over the image, and a note under it ("IoU 0.83")."""

    overlays: Sequence[Overlay]
    note: str = ""
    image: np.ndarray | None = None  # (H, W, 3) uint8 RGB; the row's by default
    window: tuple[float, float, float, float] | None = None  # xyxy px of its own image; the row's by default


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One image seen in several ways. All rows of a sheet have the same columns."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    columns: Mapping[str, Panel]  # heading: panel, left to right
    caption: str = ""
    window: tuple[float, float, float, float] | None = None  # xyxy px, the part that is shown; all by default


def contact_sheet(rows: Sequence[SheetRow], path: Path, title: str = "", note: str = "") -> None:
    """Write the rows under their column headings as one PNG, whole or not at all.

    Characters that the font lacks are escaped, and the note states so. Title and note stand above; what is
    too long for the width of the panels makes the sheet wider.

    Raises:
        ValueError: no rows, or rows with other columns than the first.
    """
    headings = list(rows[0].columns) if rows else []
    if not headings or any(list(row.columns) != headings for row in rows):
        raise ValueError(
            "contact_sheet: expected at least one row and one column, the same columns in each row"
        )
    panels = [panel for row in rows for panel in row.columns.values()]
    labels = [overlay.label for panel in panels for overlay in panel.overlays]
    notes = [panel.note for panel in panels]
    if any(map(is_escaped, [title, note, *headings, *labels, *notes, *(row.caption for row in rows)])):
        note = f"{note} {ESCAPED}".strip()
    strips = [_row_strip(row) for row in rows]
    texts = [_text_width(title, TITLE_PX), _text_width(note, NOTE_PX)]
    width = 2 * MARGIN_PX + max(*texts, *(strip.width for strip in strips))
    header = _header(headings, title, note, width)
    height = header.height + sum(strip.height + GAP_PX for strip in strips) + MARGIN_PX
    sheet = Image.new("RGB", (width, height), PAPER)
    sheet.paste(header, (0, 0))
    top = header.height
    for strip in strips:
        sheet.paste(strip, (MARGIN_PX, top))
        top += strip.height + GAP_PX
    _save(sheet, path)


def overlay_png(
    image: np.ndarray, overlays: Sequence[Overlay], path: Path, longest_px: int | None = None
) -> None:
    """Write an image (H, W, 3) uint8 with its masks and boxes as a PNG.

    Args:
        longest_px: what the longer side of the picture is at most; None: the image's own size.
    """
    _save(draw_overlays(image, overlays, longest_px), path, compress_level=PHOTO_LEVEL)


def around(
    box: Sequence[float], height: int, width: int, context: float = 0.6
) -> tuple[float, float, float, float]:
    """A square window around a box, wider by `context` of its longer side, moved into the image.

    >>> around((10, 10, 30, 20), height=100, width=100, context=0.5)
    (5.0, 0.0, 35.0, 30.0)
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    side = max(x2 - x1, y2 - y1, 16.0) * (1 + context)
    left, top = (x1 + x2 - side) / 2, (y1 + y2 - side) / 2
    left, top = max(0.0, min(left, width - side)), max(0.0, min(top, height - side))
    return left, top, min(width, left + side), min(height, top + side)


def _row_strip(row: SheetRow) -> Image.Image:
    panels = list(row.columns.values())
    pictures = [_panel_picture(row, panel) for panel in panels]
    caption = round(1.6 * CAPTION_PX) if row.caption else 0
    notes = round(1.6 * NOTE_PX) if any(panel.note for panel in panels) else 0
    tall = max(picture.height for picture in pictures)
    width = max(len(pictures) * (PANEL_PX + GAP_PX) - GAP_PX, _text_width(row.caption, CAPTION_PX))
    strip = Image.new("RGB", (width, caption + tall + notes), PAPER)
    pen = ImageDraw.Draw(strip)
    pen.text((0, 0), drawable(row.caption), fill=INK, font=font(CAPTION_PX))
    for column, (picture, panel) in enumerate(zip(pictures, panels, strict=True)):
        left = column * (PANEL_PX + GAP_PX)
        strip.paste(picture, (left + (PANEL_PX - picture.width) // 2, caption))
        pen.text((left, caption + tall + 3), drawable(panel.note), fill=FAINT, font=font(NOTE_PX))
    return strip


def _panel_picture(row: SheetRow, panel: Panel) -> Image.Image:
    image, window = (row.image, row.window) if panel.image is None else (panel.image, panel.window)
    return draw_window(image, panel.overlays, window or (0, 0, image.shape[1], image.shape[0]), PANEL_PX)


def _header(headings: Sequence[str], title: str, note: str, width: int) -> Image.Image:
    title_height = round(1.8 * TITLE_PX) if title else 0
    note_height = round(2.2 * NOTE_PX) if note else 0
    below = MARGIN_PX + title_height + note_height
    header = Image.new("RGB", (width, below + round(2.2 * CAPTION_PX)), PAPER)
    pen = ImageDraw.Draw(header)
    pen.text((MARGIN_PX, MARGIN_PX), drawable(title), fill=INK, font=font(TITLE_PX))
    pen.text((MARGIN_PX, MARGIN_PX + title_height), drawable(note), fill=FAINT, font=font(NOTE_PX))
    for column, heading in enumerate(headings):
        left = MARGIN_PX + column * (PANEL_PX + GAP_PX)
        pen.text((left, below), drawable(heading), fill=FAINT, font=font(CAPTION_PX))
    line = below + round(1.6 * CAPTION_PX)
    pen.line((MARGIN_PX, line, width - MARGIN_PX, line), fill=FAINT)
    return header


def _text_width(text: str, size: int) -> int:
    return math.ceil(font(size).getlength(drawable(text)))


def _save(picture: Image.Image, path: Path, **how: int) -> None:
    with written_whole(path) as aside:
        about = PngInfo()
        about.add_text("Software", SOFTWARE)
        picture.save(aside, format="PNG", pnginfo=about, **(how or {"optimize": True}))
