"""Grids of probabilities become masks: the one place where a cut is applied, whoever asks for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmac_distill.geometry.boxes import box_area, xywh_to_xyxy
from deepmac_distill.geometry.codes import extents_of
from deepmac_distill.geometry.rle import encode_grids

LABELING_CUT = 0.5  # of the masks in masks.parquet; another one is applied to the soft grids when reading


@dataclass(frozen=True, slots=True)
class CutMasks:
    """N masks at one cut, and what follows from the grids alone."""

    cut: float
    counts: list[bytes]  # N compressed COCO counts, each at the size of its image
    areas: NDArray[np.int64]  # (N,) pixels
    tight_boxes: NDArray[np.float64]  # (N, 4) xyxy in image pixels; zeros for a mask without a pixel
    scores: NDArray[np.float32]  # (N,) mean probability of the cells above the cut; 0 where there is none
    expected_iou: NDArray[np.float32]  # (N,) see `expected_ious`; means nothing if grids are no probabilities


def recut(grids: NDArray[np.uint8], boxes: ArrayLike, sizes: NDArray[np.int64], cut: float) -> CutMasks:
    """The masks of N grids at a cut.

    Args:
        grids: (N, S, S) uint8, 255 = certain foreground.
        boxes: (N, 4) xyxy in image pixels, clipped to the image.
        sizes: (N, 2) height and width of each image.
        cut: a cell or pixel is foreground where its probability exceeds it; in [0, 1).

    Raises:
        ValueError: grids that are not square, or as many as boxes; a cut out of range.
    """
    counts = encode_grids(grids, boxes, sizes[:, 0], sizes[:, 1], cut)
    extents = extents_of(counts, sizes[:, 0])
    cells = grids.reshape(len(grids), grids.shape[-1] ** 2)
    inside = cells > 255 * cut  # (N, S * S)
    total = cells.sum(1, dtype=np.int64)
    above = np.where(inside, cells, 0).sum(1, dtype=np.int64)
    held = inside.sum(1)
    scores = np.divide(above / np.maximum(held, 1), 255)
    return CutMasks(
        cut=cut,
        counts=counts,
        areas=extents.areas,
        tight_boxes=xywh_to_xyxy(extents.boxes_xywh),
        scores=scores.astype(np.float32),
        expected_iou=expected_ious(above, total, held),
    )


def expected_ious(above: ArrayLike, total: ArrayLike, held: ArrayLike) -> NDArray[np.float32]:
    """What IoU with the truth a mask can expect, if the grid's cells were right about their probabilities.

    A truth drawn cell by cell with these probabilities holds `sum(p inside)` of the mask on average and
    reaches `sum(p outside)` beyond it, so that the ratio of the means is

        sum(p inside) / (cells inside + sum(p outside)).

    The mean of the ratio is near it where the mask has many cells (the same step from the expected IoU to
    sums of probabilities is taken for Dice in Dai and Li, "RankSEG", JMLR 2023, arXiv:2206.13086). It is not
    calibrated: networks are overconfident, and pixels outside the box are not counted.

    Args:
        above: (N,) sum of the values, 0 to 255, of the cells inside the mask.
        total: (N,) sum of the values of all cells.
        held: (N,) how many cells are inside.
    """
    above, union = np.asarray(above), 255 * np.asarray(held) + np.asarray(total) - np.asarray(above)
    return np.asarray(above / np.maximum(union, 1), dtype=np.float32)


def box_ious(tight: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N,) IoU of two boxes each, xyxy; 0 where neither has area."""
    both = np.c_[np.maximum(tight[:, :2], boxes[:, :2]), np.minimum(tight[:, 2:], boxes[:, 2:])]
    intersection, area, other = box_area(both), box_area(tight), box_area(boxes)
    union = area + other - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0).astype(np.float32)
