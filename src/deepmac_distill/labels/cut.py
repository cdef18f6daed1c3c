"""Grids of probabilities become masks: the one place where a cut is applied, whoever asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmac_distill.geometry.boxes import box_area, xywh_to_xyxy
from deepmac_distill.geometry.rle import encode_and_measure_grids
from deepmac_distill.lattice import Lattice

if TYPE_CHECKING:  # imports torch, which a mistake in --cut is reported without
    from deepmac_distill.contract import ModelSpec

# Where a mask ends: above a probability, or where its own grid expects the largest IoU (see `best_cuts`).
Cut = float | Literal["expected-iou"]
EXPECTED_IOU: Final = "expected-iou"
DEFAULT_CUT: Cut = EXPECTED_IOU  # where nobody asks for another; masks.parquet is written with it
EVEN_CUT = 0.5  # of grids that are no probabilities, where a rule is asked for: none can be expected of them
_MASKS_AT_ONCE = 64  # keeps the cells whose values are counted in the cache
_LEVELS = 256  # values of a cell


@dataclass(frozen=True, slots=True)
class CutMasks:
    """N masks, each at its cut, and what follows from the grids alone."""

    cuts: NDArray[np.float32]  # (N,) a pixel is foreground where its probability exceeds it
    counts: list[bytes]  # N compressed COCO counts, each at the size of its image
    areas: NDArray[np.int64]  # (N,) pixels
    tight_boxes: NDArray[np.float64]  # (N, 4) xyxy in image pixels; zeros for a mask without a pixel
    scores: NDArray[np.float32]  # (N,) mean probability of the cells above the cut; 0 where there is none
    expected_iou: NDArray[np.float32]  # (N,) see `expected_ious`; means nothing if grids are no probabilities


def require_cut(cut: object) -> Cut:
    """A cut that somebody wrote.

    Raises:
        ValueError: neither a number in [0, 1) nor the name of the rule.
    """
    if cut == EXPECTED_IOU:
        return EXPECTED_IOU
    if isinstance(cut, bool) or not isinstance(cut, int | float | np.floating) or not 0 <= cut < 1:
        raise ValueError(f"cut: got {cut!r}, expected a number, 0 <= cut < 1, or {EXPECTED_IOU!r}")
    return float(cut)


def note_of(cut: Cut, spec: ModelSpec) -> str:
    """What a user should know of a cut of a model's masks, if anything."""
    if spec.probabilities or cut != EXPECTED_IOU:
        return ""
    return f"{spec.identity}: gives no probabilities: its masks are cut at {EVEN_CUT}, not by {cut}"


def recut(
    grids: NDArray[np.uint8],
    boxes: ArrayLike,
    sizes: NDArray[np.int64],
    cut: Cut,
    probabilities: bool | NDArray[np.bool_] = True,
    *,
    lattice: Lattice,
) -> CutMasks:
    """The masks of N grids at a cut.

    Args:
        grids: (N, S, S) uint8, 255 = certain foreground.
        boxes: (N, 4) xyxy in image pixels, clipped to the image.
        sizes: (N, 2) height and width of each image.
        cut: a cell or pixel is foreground where its probability exceeds it.
        probabilities: (N,) or one for all, whether a grid's values are probabilities. Others can be cut at a
            number alone, and are cut at `EVEN_CUT` where a rule is asked for.
        lattice: where the cells of the grids sample their boxes.

    Raises:
        ValueError: grids that are not square, or as many as boxes; a cut out of range.
    """
    cut = require_cut(cut)
    held, above = _at_least(grids)
    if cut == EXPECTED_IOU:
        cuts = np.where(probabilities, best_cuts(held, above), np.float32(EVEN_CUT)).astype(np.float64)
    else:
        cuts = np.full(len(grids), cut)
    counts, extents = encode_and_measure_grids(grids, boxes, sizes[:, 0], sizes[:, 1], cuts, lattice)
    masks, least = np.arange(len(grids)), np.floor(255 * cuts).astype(np.int64) + 1  # value above the cut
    total, held, above = above[:, 0], held[masks, least], above[masks, least]
    return CutMasks(
        cuts=cuts.astype(np.float32),
        counts=counts,
        areas=extents.areas,
        tight_boxes=xywh_to_xyxy(extents.boxes_xywh),
        scores=np.divide(above / np.maximum(held, 1), 255).astype(np.float32),
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


def best_cuts(held: NDArray[np.int64], above: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N,) the cut at which each grid expects the largest IoU, of all masks that its cells can make.

    A cell of probability p makes E = a / b, the ratio in `expected_ious`, larger exactly where p exceeds
    E / (1 + E): (a + p) / (b + 1 - p) > a / b. The best mask is therefore all cells above a cut, it is found
    among the 255 cuts between the values of a cell, and the cut is t = E / (1 + E) <= 1/2 at its E, which
    pixels between the cells are held to as well. Dai and Li (RankSEG, 2023) rank cells in the same way; they
    take the expectation of the ratio, where this takes the ratio of the expectations.

    Args:
        held, above: (N, 256) of `_at_least`.

    >>> grid = np.array([[[204, 102], [51, 0]]], np.uint8)  # 0.8, 0.4, 0.2, 0
    >>> best_cuts(*_at_least(grid))  # the first two: 1.2 / (2 + 0.2), and t = 1.2 / 3.4
    array([0.3529412], dtype=float32)
    """
    # E / (1 + E) = a / (a + b), and a + b holds no difference: it grows with E and is as easily compared.
    cuts = above[:, 1:] / np.maximum(255 * held[:, 1:] + above[:, :1], 1)
    return np.asarray(cuts.max(axis=1, initial=0), dtype=np.float32)


def are_best(cuts: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N,) whether masks with these expected IoUs are cut where those are largest: where t = E / (1 + E)."""
    return np.asarray(np.isclose(cuts, expected / (1 + expected), rtol=0, atol=1e-6))


def box_ious(tight: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N,) IoU of two boxes each, xyxy; 0 where neither has area."""
    both = np.c_[np.maximum(tight[:, :2], boxes[:, :2]), np.minimum(tight[:, 2:], boxes[:, 2:])]
    intersection, area, other = box_area(both), box_area(tight), box_area(boxes)
    union = area + other - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0).astype(np.float32)


def _at_least(grids: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many cells of each grid have at least the value v, and the sum of theirs: (N, 256) each."""
    cells = grids.reshape(len(grids), int(np.prod(grids.shape[1:])))
    found = np.zeros((len(cells), _LEVELS), np.int64)
    for first in range(0, len(cells), _MASKS_AT_ONCE):
        some = cells[first : first + _MASKS_AT_ONCE]
        values = some + _LEVELS * np.arange(len(some))[:, None]
        found[first : first + len(some)] = np.bincount(values.ravel(), minlength=_LEVELS * len(some)).reshape(
            -1, _LEVELS
        )
    downward = found[:, ::-1]
    held = downward.cumsum(1)[:, ::-1]
    above = (downward * np.arange(_LEVELS)[::-1]).cumsum(1)[:, ::-1]
    return held, above
