"""Masks and boxes over a photograph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from deepmac_distill.report.lettering import drawable, font

Color = tuple[int, int, int]
PALETTE: tuple[Color, ...] = (  # bright on photographs, apart for color-blind eyes, alike ones far apart
    (255, 176, 0),
    (40, 150, 255),
    (255, 64, 129),
    (0, 200, 140),
    (170, 110, 255),
    (255, 112, 32),
    (0, 210, 230),
    (190, 220, 40),
)
FILL = 0.42  # opacity of a mask's inside
_REDUCING_GAP = 1.5  # what is made much smaller is first averaged to at least so many times its size
_SOFT_PX = 4  # beyond which softening an edge changes nothing


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn of one object: its mask, its box, or both."""

    color: Color
    counts: bytes | None = None  # compressed COCO RLE at the image's size
    box: tuple[float, float, float, float] | None = None  # xyxy, image pixels
    label: str = ""  # at the top left of the box, else of the mask

    def __post_init__(self) -> None:
        if self.counts is None and self.box is None:
            raise ValueError("Overlay: got neither a mask nor a box")


def color_of(index: int) -> Color:
    """A color for the index-th object or class; they repeat after `len(PALETTE)`."""
    return PALETTE[index % len(PALETTE)]


def draw_overlays(
    image: np.ndarray, overlays: Sequence[Overlay], longest_px: int | None = None
) -> Image.Image:
    """The whole image (H, W, 3) uint8, with masks translucent and outlined.

    Args:
        longest_px: what its longer side is at most; None: the image's own size.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    return draw_window(image, overlays, (0, 0, width, height), min(longest_px or longest, longest))


def draw_window(
    image: np.ndarray,
    overlays: Sequence[Overlay],
    window: tuple[float, float, float, float],
    longest_px: int,
) -> Image.Image:
    """The part of an image inside `window` (xyxy, widened to whole pixels), its longer side `longest_px`.

    Masks are resized like the photograph and cut afterwards, so their outlines are smooth and one width.
    """
    x1, y1, x2, y2 = _whole_window(window, *image.shape[:2])
    scale = longest_px / max(x2 - x1, y2 - y1)
    size = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
    crop = Image.fromarray(np.ascontiguousarray(image[y1:y2, x1:x2]))
    small = crop.resize(size, Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
    canvas = np.array(small, dtype=np.float32)
    line = line_width(size)
    masks = [{"size": list(image.shape[:2]), "counts": overlay.counts} for overlay in overlays]
    for overlay, rle in zip(overlays, masks, strict=True):
        if overlay.counts is not None:
            # A code runs down the columns: lying on its side it is an image in memory already.
            lying = Image.fromarray(hotcoco.mask.decode(rle).T[x1:x2, y1:y2] * np.uint8(255))
            mask = lying.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)
            _blend(canvas, mask.transpose(Image.Transpose.TRANSPOSE), overlay.color, line)
    picture = Image.fromarray(canvas.round().astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for overlay, rle in zip(overlays, masks, strict=True):
        corners = (_corners(overlay, rle) - (x1, y1, x1, y1)) * scale
        if overlay.box is not None:
            _draw_box(pen, corners, overlay.color, line)
        if overlay.label:
            _draw_label(pen, overlay.label, corners, overlay.color, size)
    return picture


def line_width(size: tuple[int, int]) -> int:
    """Outline width in px that reads alike on small and large pictures of `size` (width, height)."""
    return max(2, round(math.hypot(*size) / 400))


def _blend(canvas: np.ndarray, mask: Image.Image, color: Color, line: int) -> None:
    """Draw a mask on the canvas, in place; only the part of it that the mask reaches is worked on."""
    solid = mask.point(lambda value: 255 * (value > 127))
    if (reach := solid.getbbox()) is None:
        return
    # Wider than the outline and the softening; at the edge of the picture both go on as they do on all of it.
    left, top = (max(0, side - line - _SOFT_PX) for side in reach[:2])
    right, bottom = (
        min(end, side + line + _SOFT_PX) for side, end in zip(reach[2:], solid.size, strict=True)
    )
    solid = solid.crop((left, top, right, bottom))
    # Eroding: a pixel stays where all around it are foreground. A mean costs the same for every width.
    eroded = solid.filter(ImageFilter.BoxBlur(line)).point(lambda value: 255 * (value == 255))
    inside, core = _softened(solid), _softened(eroded)
    opacity = inside * (1 - (1 - FILL) * core)  # (h, w, 1): 1 on the outline, FILL within
    part = canvas[top:bottom, left:right]
    part *= 1 - opacity
    part += np.array(color, dtype=np.float32) * opacity


def _softened(mask: Image.Image) -> np.ndarray:
    blurred = mask.filter(ImageFilter.GaussianBlur(0.6))  # hides the stairs of a hard edge
    return np.asarray(blurred, dtype=np.float32)[..., None] / 255


def _draw_box(pen: ImageDraw.ImageDraw, corners: np.ndarray, color: Color, line: int) -> None:
    x1, y1, x2, y2 = corners.tolist()
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)  # half-open
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0), width=line + 2)
    pen.rectangle((x1, y1, x2, y2), outline=color, width=line)


def _draw_label(
    pen: ImageDraw.ImageDraw, text: str, corners: np.ndarray, color: Color, size: tuple[int, int]
) -> None:
    face, text = font(5 + 3 * line_width(size)), drawable(text)
    width, height = (round(v) for v in pen.textbbox((0, 0), text, font=face)[2:])
    x = min(max(0, corners[0] - 1), max(0, size[0] - width - 7))
    y = corners[1] - height - 5 if corners[1] > height + 5 else max(0, corners[1])
    pen.rectangle((x, y, x + width + 6, y + height + 4), fill=color)
    pen.text((x + 3, y + 1), text, fill=(0, 0, 0), font=face)


def _corners(overlay: Overlay, rle: dict[str, Any]) -> np.ndarray:
    """The box drawn with an object (4,), xyxy: its own, else its mask's."""
    if overlay.box is not None:
        return np.array(overlay.box, dtype=float)
    x, y, w, h = hotcoco.mask.to_bbox(rle)
    return np.array([x, y, x + w, y + h])


def _whole_window(window: tuple[float, float, float, float], height: int, width: int) -> tuple[int, ...]:
    x1, y1, x2, y2 = window
    x1, y1 = min(max(0, math.floor(x1)), width - 1), min(max(0, math.floor(y1)), height - 1)
    return x1, y1, max(x1 + 1, min(width, math.ceil(x2))), max(y1 + 1, min(height, math.ceil(y2)))
