"""Which detections match which truths, class by class: all that average precision depends on but the images.

hotcoco matches; an image weighs in later (`paired_precision`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from deepmac_distill.evaluation.average_precision import CocoTruth, Detection, ranks_of
from deepmac_distill.evaluation.means import Floats

AREAS = (
    (0.0, 1e10),
    (0.0, 32.0**2),
    (32.0**2, 96.0**2),
    (96.0**2, 1e10),
)  # COCO's: all, small, medium, large
THRESHOLDS = 10  # COCO's IoU of 0.5 to 0.95

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Matched:
    """The detections of one class that match a truth of one area range at one IoU threshold."""

    at: Integers  # (M,) ascending positions among the class's detections
    counts: Booleans  # (M,) the truth is none to ignore


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """The D detections of one class, the best first, and which truths they match."""

    index: int  # of the class
    positives: Floats  # (A, I) truths of each area range and image that count
    image: Integers  # (D,) from 0
    rank: Integers  # (D,) among those of its image, from 0
    inside: Booleans  # (A, D) its own area is in the range; where it is not, matching nothing is no error
    matched: Mapping[tuple[int, int], Matched]  # area range, threshold -> those that match; others match none


@dataclass(frozen=True, slots=True)
class _Found:
    """Columns of N detections."""

    detections: Sequence[Detection]
    image: Integers  # from 0
    category_id: Integers
    score: Floats
    area: Floats
    ranks: tuple[int, ...]

    @classmethod
    def of(cls, truth: CocoTruth, detections: Sequence[Detection]) -> _Found:
        ids = np.array([found["image_id"] for found in detections], dtype=np.int64)
        return cls(
            detections,
            np.searchsorted(truth.image_ids, ids),
            np.array([found["category_id"] for found in detections], dtype=np.int64),
            np.array([found["score"] for found in detections], dtype=np.float64),
            _areas(truth, detections),
            ranks_of(detections),
        )


def matches_of(truth: CocoTruth, detections: Sequence[Detection]) -> Iterator[ClassMatches]:
    """Of every class that has a truth, in the order of its index.

    Raises:
        DataError: a detection names an image or a category that the truth does not have.
    """
    detections = truth.that_count(detections)
    found = _Found.of(truth, detections)
    # Where an image has no truth of a class nothing can match; hotcoco need not look, and lists are long.
    sought = np.array(
        [(one["image_id"], one["category_id"]) in truth.cells for one in detections], dtype=np.bool_
    )
    loaded = truth.found([detections[at] for at in np.flatnonzero(sought).tolist()])
    with_truth = truth.categories
    for index, category_id in enumerate(truth.truth.classes.category_ids):
        if category_id in with_truth:
            yield _of_class(truth, found, np.flatnonzero(sought), loaded, index, category_id)


def _of_class(
    truth: CocoTruth, found: _Found, sought: Integers, loaded: hotcoco.COCO, index: int, category_id: int
) -> ClassMatches:
    order, rank = _best_first(found, category_id)
    position = np.full(len(found.score), -1)
    position[order] = np.arange(len(order))
    positives = np.zeros((len(AREAS), len(truth.image_ids)))
    at: dict[tuple[int, int], list[Integers]] = {}
    counts: dict[tuple[int, int], list[Booleans]] = {}
    for area, cell in _cells(truth, loaded, found.ranks, category_id):
        image = np.searchsorted(truth.image_ids, cell["image_id"])
        positives[area, image] += len(cell["gtIgnore"]) - sum(cell["gtIgnore"])
        if not cell["dtIds"]:
            continue
        places = position[sought[np.array(cell["dtIds"]) - 1]]
        matched, ignored = np.array(cell["dtMatches"]) > 0, np.array(cell["dtIgnore"], dtype=np.bool_)
        for threshold in np.flatnonzero(matched.any(axis=1)).tolist():
            which = matched[threshold]
            at.setdefault((area, threshold), []).append(places[which])
            counts.setdefault((area, threshold), []).append(~ignored[threshold][which])
    area_px = found.area[order]
    return ClassMatches(
        index=index,
        positives=positives,
        image=found.image[order],
        rank=rank,
        inside=np.array([(low <= area_px) & (area_px <= high) for low, high in AREAS]),
        matched={key: _in_order(at[key], counts[key]) for key in at},
    )


def _cells(
    truth: CocoTruth, loaded: hotcoco.COCO, ranks: Sequence[int], category_id: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """hotcoco's matches of each image of a class, with the position of the area range."""
    evaluation = truth.matched(loaded, ranks, [category_id])
    for cell in evaluation.eval_imgs:
        if cell is not None:
            yield AREAS.index(tuple(cell["aRng"])), cell


def _best_first(found: _Found, category_id: int) -> tuple[Integers, Integers]:
    """Detections of a class by falling score, ties by image and as given; and the rank in the image."""
    mine = np.flatnonzero(found.category_id == category_id)
    mine = mine[np.lexsort((-found.score[mine], found.image[mine]))]  # stable, as COCO's sort
    _, starts, sizes = np.unique(found.image[mine], return_index=True, return_counts=True)
    rank = np.arange(len(mine)) - np.repeat(starts, sizes)
    order = np.argsort(-found.score[mine], kind="stable")
    return mine[order], rank[order]


def _in_order(at: list[Integers], counts: list[Booleans]) -> Matched:
    places, counted = np.concatenate(at), np.concatenate(counts)
    order = np.argsort(places)
    return Matched(places[order], counted[order])


def _areas(truth: CocoTruth, detections: Sequence[Detection]) -> Floats:
    """(N,) pixels of the mask, or of the box."""
    if not detections:
        return np.zeros(0)
    if truth.iou_type == "segm":
        return np.array(hotcoco.mask.area([found["segmentation"] for found in detections]), dtype=np.float64)
    return np.array([found["bbox"][2] * found["bbox"][3] for found in detections], dtype=np.float64)
