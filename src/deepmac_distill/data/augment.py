"""What the network sees of an image: one crop, its place on a square canvas, its flip and its colors.

A `View` is drawn once per image and is plain data; applying it to pixels, boxes and masks is pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepmac_distill.geometry.boxes import Boxes, clip_boxes

ViewOf = Callable[[np.random.Generator, int, int], "View"]  # (rng, height, width) of an image -> its view

BORDER_PX = 128  # the crop's center keeps this far from the image's edge, or a power of two less
BLACK = (0, 0, 0)
_LUMA = torch.tensor([0.299, 0.587, 0.114])  # Rec. 601


@dataclass(frozen=True, slots=True)
class Colors:
    """A change of color; these values change nothing."""

    hue: float = 0.0  # share of a full turn
    contrast: float = 1.0  # factor on the distance from each channel's mean
    saturation: float = 1.0  # factor on the distance from gray
    brightness: float = 0.0  # added, in units of the full range


@dataclass(frozen=True, slots=True)
class View:
    """The visible part of an image of `height` x `width`, and its place on the canvas."""

    height: int  # of the source image
    width: int
    crop: tuple[int, int, int, int]  # xyxy in source pixels; filled where it leaves the image
    fit: tuple[int, int]  # (height, width) of the crop on the canvas, at the top left
    size_px: int  # side of the canvas, filled outside `fit`
    flipped: bool = False  # left and right exchanged, after everything else
    colors: Colors | None = None
    fill: tuple[int, int, int] = BLACK  # RGB beyond the image

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels per source pixel: (y, x)."""
        x1, y1, x2, y2 = self.crop
        return self.fit[0] / (y2 - y1), self.fit[1] / (x2 - x1)

    def clip(self, boxes: Boxes) -> Boxes:
        """The visible part of (N, 4) source boxes, in source pixels; without area where none is visible."""
        (x1, y1, x2, y2), corner = self.crop, np.tile(self.crop[:2], 2)
        in_crop = clip_boxes(clip_boxes(boxes, self.height, self.width) - corner, y2 - y1, x2 - x1)
        visible: Boxes = in_crop + corner
        return visible

    def to_canvas(self, boxes: Boxes) -> Boxes:
        """(N, 4) source boxes in canvas pixels, not clipped."""
        return self._turned((boxes - np.tile(self.crop[:2], 2)) * np.tile(self.scale[::-1], 2))

    def _turned(self, boxes: Boxes) -> Boxes:
        """(N, 4) canvas boxes, left and right exchanged where the view is flipped."""
        x1, y1, x2, y2 = np.asarray(boxes, dtype=np.float64).T
        return np.stack(
            [self.fit[1] - x2, y1, self.fit[1] - x1, y2] if self.flipped else [x1, y1, x2, y2], axis=1
        )

    def grids(self, masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mask grids over source boxes, (N, S, S), as grids over the same boxes on the canvas."""
        return masks[:, :, ::-1] if self.flipped else masks

    def image(self, image: Tensor) -> Tensor:
        """The canvas: (3, height, width) uint8 to (3, size_px, size_px) uint8, bilinear with antialiasing."""
        if image.shape != (3, self.height, self.width):
            raise ValueError(f"image: got {tuple(image.shape)}, expected {(3, self.height, self.width)}")
        x1, y1, x2, y2 = self.crop
        outside = (-x1, x2 - self.width, -y1, y2 - self.height)  # left, right, top, bottom; negative cuts
        padded = _padded(image, outside, self.fill)[None]
        visible = F.interpolate(padded, self.fit, mode="bilinear", antialias=True)[0]
        if self.colors is not None:
            left, top, right, bottom = self._content()
            inside = visible[:, top:bottom, left:right]
            visible[:, top:bottom, left:right] = change_colors(inside, self.colors)
        visible = visible.flip(-1) if self.flipped else visible
        return _padded(visible, (0, self.size_px - self.fit[1], 0, self.size_px - self.fit[0]), self.fill)

    def _content(self) -> tuple[int, int, int, int]:
        """The place of the image itself in the crop on the canvas, before any flip: xyxy, whole pixels."""
        whole = self.clip(np.array([[0.0, 0.0, self.width, self.height]]))[0]
        (scale_y, scale_x), (x1, y1, _, _) = self.scale, self.crop
        left, top = math.floor((whole[0] - x1) * scale_x), math.floor((whole[1] - y1) * scale_y)
        return left, top, math.ceil((whole[2] - x1) * scale_x), math.ceil((whole[3] - y1) * scale_y)


def _padded(image: Tensor, sides: tuple[int, int, int, int], fill: tuple[int, int, int]) -> Tensor:
    """(3, H, W) with so many pixels more at left, right, top and bottom; fewer where negative."""
    if fill == BLACK:
        return F.pad(image, sides)
    return torch.stack([F.pad(one, sides, value=value) for one, value in zip(image, fill, strict=True)])


def training_view(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    size_px: int,
    scale_range: tuple[float, float] = (0.6, 1.3),
    flip_fraction: float = 0.5,
    color_jitter: bool = True,
) -> View:
    """A random square crop, flip and colors.

    CenterNet's square crop (arXiv:1904.07850, public code) as Deep-MAC sets it (arXiv:2104.00613): the
    side is one of 8 even steps of `scale_range` times the longer side of the image; the center is uniform
    where it keeps 128 px, halved until that is less than half the side, from the image's edge.
    """
    side = max(1, int(rng.choice(np.linspace(*scale_range, 8)) * max(height, width)))
    x1 = _crop_center(rng, width) - side // 2
    y1 = _crop_center(rng, height) - side // 2
    flipped = bool(rng.random() < flip_fraction)
    colors = draw_colors(rng)
    return View(
        height=height,
        width=width,
        crop=(x1, y1, x1 + side, y1 + side),
        fit=(size_px, size_px),
        size_px=size_px,
        flipped=flipped,
        colors=colors if color_jitter else None,
    )


def evaluation_view(height: int, width: int, size_px: int) -> View:
    """The whole image, its longer side `size_px`, at the top left of the canvas.

    The shorter side is rounded to whole pixels; `scale` is then exact per axis, so that the image's edge is
    the edge of `fit`.
    """
    longer = max(height, width)
    fit = (max(1, round(height * size_px / longer)), max(1, round(width * size_px / longer)))
    return View(height=height, width=width, crop=(0, 0, width, height), fit=fit, size_px=size_px)


def training_views(
    size_px: int,
    scale_range: tuple[float, float] = (0.6, 1.3),
    flip_fraction: float = 0.5,
    color_jitter: bool = True,
) -> ViewOf:
    """`training_view` with its settings bound, for a data set."""
    return partial(
        training_view,
        size_px=size_px,
        scale_range=scale_range,
        flip_fraction=flip_fraction,
        color_jitter=color_jitter,
    )


def evaluation_views(size_px: int) -> ViewOf:
    """`evaluation_view` for a data set: the same view at every draw."""
    return partial(_evaluation_view_of, size_px)


def stretched_views(size_px: int) -> ViewOf:
    """The whole image as the whole canvas, whatever its shape."""
    return partial(_stretched_view_of, size_px)


def native_views(multiple: int = 1) -> ViewOf:
    """The whole image at its own size, on a square canvas whose side is a multiple of `multiple`."""
    return partial(_native_view_of, multiple)


def change_colors(image: Tensor, colors: Colors) -> Tensor:
    """The image with hue, contrast, saturation and brightness changed, in this order: (3, H, W) uint8.

    The four are one affine map of RGB, rounded and cut to 0..255 once. Deviations from the reference, which
    turns the hue in HSV (15 times slower) and cuts after each: the hue turns about the gray axis at equal
    luma, so that gray stays gray. Contrast is about each channel's mean and brightness is added, as there.
    """
    flat = image.reshape(3, -1).float()  # (3, P)
    turn = _turn_about_gray(2 * math.pi * colors.hue)
    gray = _LUMA.expand(3, 3)
    saturate = colors.saturation * torch.eye(3) + (1 - colors.saturation) * gray
    matrix = colors.contrast * saturate @ turn  # (3, 3)
    mean = turn @ flat.mean(dim=1, keepdim=True)
    offset = saturate @ ((1 - colors.contrast) * mean) + 255 * colors.brightness  # (3, 1)
    return torch.addmm(offset, matrix, flat).round_().clamp_(0, 255).to(torch.uint8).reshape(image.shape)


def _evaluation_view_of(size_px: int, _rng: np.random.Generator, height: int, width: int) -> View:
    return evaluation_view(height, width, size_px)


def _stretched_view_of(size_px: int, _rng: np.random.Generator, height: int, width: int) -> View:
    fit = (size_px, size_px)
    return View(height=height, width=width, crop=(0, 0, width, height), fit=fit, size_px=size_px)


def _native_view_of(multiple: int, _rng: np.random.Generator, height: int, width: int) -> View:
    size_px = -(-max(height, width) // multiple) * multiple
    return View(height=height, width=width, crop=(0, 0, width, height), fit=(height, width), size_px=size_px)


def _crop_center(rng: np.random.Generator, length: int) -> int:
    border = BORDER_PX
    while border > 0 and 2 * border >= length:
        border //= 2
    return int(rng.integers(border, length - border))


def draw_colors(rng: np.random.Generator) -> Colors:
    """A random change, in the ranges of the Deep-MAC training configurations."""
    return Colors(
        hue=float(rng.uniform(-0.02, 0.02)),
        contrast=float(rng.uniform(0.8, 1.25)),
        saturation=float(rng.uniform(0.8, 1.25)),
        brightness=float(rng.uniform(-0.2, 0.2)),
    )


def _turn_about_gray(angle: float) -> Tensor:
    """(3, 3): a turn of the RGB colors by `angle` radians, red towards green, that keeps gray and luma."""
    cosine, sine = math.cos(angle), math.sin(angle) / math.sqrt(3)
    around = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])  # Rodrigues, axis (1, 1, 1)
    turn = cosine * torch.eye(3) + (1 - cosine) / 3 + sine * around
    # The turn shifts luma; the shift is taken out of all channels alike, which leaves chroma as it is.
    return turn + _LUMA @ (torch.eye(3) - turn)
