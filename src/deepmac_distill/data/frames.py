"""The frames in which a model sees the boxes of an image: the whole image, windows around boxes, or both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.contract import ModelSpec
from deepmac_distill.data.augment import View, ViewOf, evaluation_views, native_views, stretched_views
from deepmac_distill.geometry.boxes import Boxes
from deepmac_distill.look import Look

SMALLEST_WINDOW_PX = 24  # of the source: a tiny box is not blown up without bound


@dataclass(frozen=True, slots=True)
class Frame:
    """A view of an image, and the boxes that a model is asked for in it."""

    view: View
    shown: NDArray[np.int64]  # (n,) positions among the boxes of the image
    whole: bool  # whether it is the whole image, or a window around one box


def views_of(spec: ModelSpec) -> ViewOf:
    """Whole images at the size that a model takes."""
    return partial(_view_of, spec)


def view_for(spec: ModelSpec, height: int, width: int) -> View:
    """One image of `height` x `width` at the size that a model takes."""
    return views_of(spec)(np.random.default_rng(0), height, width)


def _view_of(spec: ModelSpec, rng: np.random.Generator, height: int, width: int) -> View:
    size_px = spec.input_size_px
    if size_px is None:
        views = native_views(spec.size_divisibility)
    else:
        views = stretched_views(size_px) if spec.stretched else evaluation_views(size_px)
    return replace(views(rng, height, width), fill=spec.padding_rgb)


@dataclass(frozen=True, slots=True)
class WhereSeen:
    """Which of N boxes a model sees in the whole image, and which in a window."""

    in_image: NDArray[np.bool_]  # (N,)
    in_window: NDArray[np.bool_]  # (N,)


def where_seen(look: Look, boxes: Boxes, sizes: NDArray[np.int64]) -> WhereSeen:
    """Where `look` has each box seen.

    Args:
        boxes: (N, 4) xyxy in pixels of their images, clipped to them.
        sizes: (N, 2) height and width of each image.
    """
    everywhere, nowhere = np.ones(len(boxes), np.bool_), np.zeros(len(boxes), np.bool_)
    match look.boxes:
        case "image":
            return WhereSeen(everywhere, nowhere)
        case "windows":
            return WhereSeen(nowhere, everywhere)
        case "average":
            return WhereSeen(everywhere, everywhere)
        case "by-size":
            longer = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
            large = longer >= look.image_from * sizes.max(1, initial=0)
            return WhereSeen(large, ~large)


def look_words(look: Look, spec: ModelSpec, boxes: Boxes, sizes: NDArray[np.int64]) -> list[str]:
    """How a model sees each of N boxes, such as "window 128 px x 1.5"; see `where_seen`."""
    image = "image" if spec.input_size_px is None else f"image {spec.input_size_px} px"
    window, seen = f"window {spec.window_size_px(look)} px", where_seen(look, boxes, sizes)
    pairs = zip(seen.in_image.tolist(), seen.in_window.tolist(), strict=True)
    return [look.words(image, window, in_image=a, in_window=b) for a, b in pairs]


def frames_of(look: Look, spec: ModelSpec, boxes: Boxes, height: int, width: int) -> list[Frame]:
    """Where a model sees each of the boxes of an image, as often as `look` has it; at least once.

    Args:
        boxes: (N, 4) xyxy in pixels of the image, clipped to it, with area.
    """
    seen = where_seen(look, boxes, np.tile([height, width], (len(boxes), 1)))
    in_image, in_windows = np.flatnonzero(seen.in_image), np.flatnonzero(seen.in_window)
    frames = []
    if len(in_image) or look.boxes == "image":  # without boxes too, so that batches stay what they were
        frames.append(Frame(view_for(spec, height, width), in_image, whole=True))
    size_px = spec.window_size_px(look)
    for at in in_windows:
        view = window_view(boxes[at], height, width, look.window_context, size_px)
        frames.append(Frame(replace(view, fill=spec.padding_rgb), np.array([at]), whole=False))
    if look.mirror:
        frames += [replace(frame, view=replace(frame.view, flipped=True)) for frame in frames]
    return frames


def window_view(
    box: NDArray[np.float64],
    height: int,
    width: int,
    context: float,
    size_px: int,
    shift: tuple[float, float] = (0.0, 0.0),
) -> View:
    """A square window around a box: whole source pixels, scaled to the canvas, black beyond the image.

    Args:
        box: (4,) xyxy in pixels of the image.
        context: side of the window / longer side of the box. Without a shift the box is inside in any case,
            and the side is at least 24 px.
        shift: (x, y) by which the center moves, in sides of the window.
    """
    x1, y1, x2, y2 = (float(side) for side in box)
    longer = max(x2 - x1, y2 - y1)
    side = math.ceil(max(context * longer, longer + 2, SMALLEST_WINDOW_PX))  # 2: for rounding the corner
    left = math.floor((x1 + x2) / 2 + (shift[0] - 0.5) * side)
    top = math.floor((y1 + y2) / 2 + (shift[1] - 0.5) * side)
    return View(
        height=height,
        width=width,
        crop=(left, top, left + side, top + side),
        fit=(size_px, size_px),
        size_px=size_px,
    )
