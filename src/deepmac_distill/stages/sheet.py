"""Which masks the contact sheet of a run shows: of every model the worst, the median and the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.views import Truth
from deepmac_distill.evaluation.mask_iou import masks_by_row
from deepmac_distill.evaluation.splits import split_classes
from deepmac_distill.geometry.boxes import box_area
from deepmac_distill.report.contact_sheet import Panel, SheetRow, around
from deepmac_distill.report.drawing import Overlay, color_of

MIN_BOX_PX = 32**2  # area of the smallest box whose masks can be distinguished on a sheet


@dataclass(frozen=True, slots=True)
class EvaluatedMasks:
    """One model's masks of the N objects of the truth."""

    counts: pa.ChunkedArray  # (N,) compressed RLE, null where there is none
    iou: NDArray[np.float64]  # (N,) with the truth, NaN where the object was not evaluated
    ellipse_iou: NDArray[np.float64]  # (N,) of the ellipse inscribed in the box, the floor; NaN likewise

    @classmethod
    def of(cls, truth: Truth, masks: pa.Table, ious: pa.Table) -> EvaluatedMasks:
        """From tables with `row` of the truth: masks with `rle_counts`, IoUs with
        `iou` and `ellipse_iou`.
        """
        dense = np.full((2, len(truth.annotations)), np.nan)
        dense[:, ious["row"].to_numpy()] = [ious[name].to_numpy() for name in ("iou", "ellipse_iou")]
        return cls(masks_by_row(truth, masks), *dense)

    def evaluated(self) -> NDArray[np.bool_]:
        """Objects with a mask and an IoU: (N,) bool."""
        drawn: NDArray[np.bool_] = pc.is_valid(self.counts).to_numpy()
        return drawn & np.isfinite(self.iou)


@dataclass(frozen=True, slots=True)
class Pick:
    """One of N ranked values."""

    place: str  # worst | median | best
    rank: int  # 1 is the lowest value, N the highest
    index: int  # position among the values as they were given


@dataclass(frozen=True, slots=True)
class Sheet:
    """The rows of a contact sheet, and in words which masks were ranked."""

    rows: list[SheetRow]
    note: str


def worst_median_best(values: Sequence[float], each: int) -> list[Pick]:
    """The `each` lowest values, as many of middle rank and as many highest, in rising order, none twice.

    Equal values rank in the order in which they are given; of two middles the lower one is taken. Of fewer
    than 3 x `each` values it is fewer of each: of two the worst and the best, of one the worst.

    >>> [(pick.place, pick.rank, pick.index) for pick in worst_median_best([0.9, 0.1, 0.4, 0.7], each=1)]
    [('worst', 1, 1), ('median', 2, 2), ('best', 4, 0)]
    """
    order = np.argsort(np.asarray(values, dtype=float), kind="stable")
    n = len(order)
    each = min(each, max(1, n // 3), n)
    place_of: dict[int, str] = {}  # rank from 0
    for place, first in (("worst", 0), ("best", n - each), ("median", (n - each) // 2)):
        for rank in range(first, first + each):
            place_of.setdefault(rank, place)
    return [Pick(place_of[rank], rank + 1, int(order[rank])) for rank in sorted(place_of)]


def draw_sheet(
    truth: Truth,
    images: ImageStore,
    found: Mapping[str, EvaluatedMasks],
    each: int,
    shown_elsewhere: frozenset[str] = frozenset(),
) -> Sheet:
    """For each model its worst, median and best masks by IoU with the truth, beside those of the others.

    The objects are those on which every model was evaluated: of unseen classes if there are any, and in boxes
    of at least `MIN_BOX_PX` if there are any. Equal IoUs rank in the order of the table.

    Args:
        found: heading -> a model's masks.
        each: so many of the worst, of the median and of the best.
        shown_elsewhere: classes whose masks a model saw elsewhere; they do not count as unseen.

    Returns:
        A sheet without rows if there is no object to show.
    """
    rows, kind, note = _ranked(truth, found, shown_elsewhere)
    names = [truth.classes.names[index] for index in truth.class_index()[rows]]
    sheet = []
    for heading, masks in found.items():
        for pick in worst_median_best(masks.iou[rows].tolist(), each):
            row = int(rows[pick.index])
            caption = f"{heading}: {pick.place}, rank {pick.rank} of {len(rows)} {kind} by IoU"
            panels = {other: _panel(theirs, row) for other, theirs in found.items()}
            floor = f"ellipse in it: IoU {masks.ellipse_iou[row]:.2f}"
            sheet.append(_row(truth, images, row, panels, f"{caption}: {names[pick.index]}", floor))
    return Sheet(sheet, note)


def _ranked(
    truth: Truth, found: Mapping[str, EvaluatedMasks], shown_elsewhere: frozenset[str]
) -> tuple[NDArray[np.int64], str, str]:
    """The table rows (M,) of the ranked objects, their masks' kind, and a line that describes them."""
    evaluated = np.all([masks.evaluated() for masks in found.values()], axis=0)
    members = split_classes(truth.classes, shown_elsewhere).unseen
    unseen = evaluated & np.isin(truth.class_index(), members)
    kind, classes = ("unseen masks", "unseen classes") if unseen.any() else ("masks", "all classes")
    shown = unseen if unseen.any() else evaluated
    large = shown & (box_area(truth.boxes_xyxy()) >= MIN_BOX_PX)
    boxes = f"boxes of {MIN_BOX_PX} px and more" if large.any() else "boxes of any size"
    note = f"Masks in given boxes, ranked by their IoU with the truth, 1 the worst: {classes}, {boxes}"
    return np.flatnonzero(large if large.any() else shown), kind, note


def _row(
    truth: Truth, images: ImageStore, row: int, panels: Mapping[str, Panel], caption: str, floor: str
) -> SheetRow:
    entry = truth.annotations.slice(row, 1).to_pylist()[0]
    (height, width), box = truth.image_sizes()[row].tolist(), tuple(truth.boxes_xyxy()[row].tolist())
    true_mask = mask_rle(entry["polygons"], entry["rle_counts"], height, width)["counts"]
    image = int(np.searchsorted(truth.rows_by_image(), row, side="right")) - 1
    name = truth.images["file_name"][image].as_py()
    return SheetRow(
        image=images.read(name).permute(1, 2, 0).numpy(),
        columns={
            "given box": Panel([Overlay(color_of(0), box=box)], floor),
            "truth": Panel([Overlay(color_of(0), true_mask)]),
            **panels,
        },
        caption=caption,
        window=around(box, height, width),
    )


def _panel(masks: EvaluatedMasks, row: int) -> Panel:
    return Panel([Overlay(color_of(0), masks.counts[row].as_py())], f"IoU {masks.iou[row]:.2f}")
