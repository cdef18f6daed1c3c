"""A mask as the polygons of a format, and how much of the mask that loses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from deepmac_distill.exports.masks import MaskObject, Picture
from deepmac_distill.geometry.outlines import TOLERANCE_PX, Course, Ring, cut_open, joined, parts_of

POOR_IOU = 0.9  # below it a bridge or a slit has changed what the mask shows
DIGITS = 2  # of a coordinate in pixels


@dataclass(frozen=True, slots=True)
class Loss:
    """What one mask lost on its way into a format."""

    iou: float = 1.0  # of what the format holds with the mask
    parts_joined: int = 0  # to others by a bridge, where a format has one polygon an object
    holes_cut: int = 0  # open by a slit: polygons have no holes


@dataclass(frozen=True, slots=True)
class Outlined:
    """The polygons of one object."""

    rings: tuple[Ring, ...]  # in pixels of the image
    loss: Loss


@dataclass(frozen=True, slots=True)
class Losses:
    """What N masks lost."""

    masks: int
    mean_iou: float
    worst_iou: float
    worst_id: int | None  # the annotation of the worst
    poor: int  # masks of which the format holds less than POOR_IOU
    parts_joined: int
    holes_cut: int

    @classmethod
    def of(cls, losses: Iterable[tuple[int, Loss]]) -> Losses:
        """Of annotation ids and losses; no mask at all loses nothing."""
        found = list(losses)
        ious = np.array([loss.iou for _, loss in found])
        worst = int(ious.argmin()) if found else None
        return cls(
            masks=len(found),
            mean_iou=float(ious.mean()) if found else 1.0,
            worst_iou=1.0 if worst is None else float(ious[worst]),
            worst_id=None if worst is None else found[worst][0],
            poor=int((ious < POOR_IOU).sum()),
            parts_joined=sum(loss.parts_joined for _, loss in found),
            holes_cut=sum(loss.holes_cut for _, loss in found),
        )


def outlined(
    thing: MaskObject,
    picture: Picture,
    course: Course = "edges",
    *,
    single: bool = False,
    tolerance_px: float = TOLERANCE_PX,
) -> Outlined:
    """The polygons of an object that has a mask.

    What was drawn as polygons stays as it was where the course is along edges, which is COCO's, and
    the format takes as many polygons.

    Args:
        single: one polygon for all parts.
    """
    assert thing.rle is not None
    if course == "edges" and thing.polygons and not (single and len(thing.polygons) > 1):
        drawn = tuple(np.asarray(part, dtype=np.float64).reshape(-1, 2) for part in thing.polygons)
        return Outlined(drawn, Loss())
    mask, left, top = crop_of(thing)
    parts = parts_of(mask, course, tolerance_px)
    rings = [cut_open(part) for part in parts]
    holes, bridges = sum(len(part.holes) for part in parts), 0
    if single and len(rings) > 1:
        bridges, rings = len(rings) - 1, [joined(rings)]
    loss = Loss(_iou(rings, mask, course), bridges, holes)
    return Outlined(tuple((ring + np.array([left, top])).round(DIGITS) for ring in rings), loss)


def crop_of(thing: MaskObject) -> tuple[NDArray[np.bool_], int, int]:
    """The mask inside its tight box (h, w), and the box's left and top."""
    rle = thing.rle
    left, top, width, height = (int(side) for side in coco_mask.toBbox(rle))
    whole = coco_mask.decode(rle)
    return whole[top : top + height, left : left + width].astype(bool), left, top


def flat(ring: Ring) -> list[float]:
    """A ring as x1, y1, x2, y2, ...; whole numbers without a point, which halves the bytes of a file."""
    return [int(value) if value == int(value) else value for value in ring.ravel().tolist()]


def _iou(rings: Sequence[Ring], mask: NDArray[np.bool_], course: Course) -> float:
    """IoU of a mask with its polygons as those fill them who expect that course."""
    if course == "edges":
        codes = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], *mask.shape)
        filled = coco_mask.decode(coco_mask.merge(codes)).astype(bool)
    else:
        filled = np.zeros(mask.shape, dtype=bool)
        for ring in rings:
            canvas = Image.new("1", mask.shape[::-1])
            ImageDraw.Draw(canvas).polygon([(x, y) for x, y in ring.tolist()], fill=1, outline=1)
            filled |= np.asarray(canvas)
    union = int((filled | mask).sum())
    return float((filled & mask).sum() / union) if union else 1.0
