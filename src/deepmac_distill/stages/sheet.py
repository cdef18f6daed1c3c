"""Which images the contact sheet of a run shows, and what is drawn on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from deepmac_distill.annotations.coco import AnnotationSet
from deepmac_distill.annotations.masks import mask_rle
from deepmac_distill.data.images import read_image, resolve_image
from deepmac_distill.geometry.boxes import box_area
from deepmac_distill.report.contact_sheet import Panel, SheetRow, around
from deepmac_distill.report.drawing import Overlay, color_of

MOST_BOXES = 12  # per image; more cannot be told apart on a sheet


@dataclass(frozen=True, slots=True)
class Judged:
    """One model's mask of one object."""

    counts: bytes  # compressed RLE
    iou: float  # with the truth


def sheet_rows(
    truth: AnnotationSet, folder: Path, found: Mapping[str, Mapping[int, Judged]], count: int
) -> list[SheetRow]:
    """Rows of image with boxes, truth, and each model's masks, for unseen classes (if there are any).

    The images are not chosen for their looks: they lie evenly over all that hold such an object.

    Args:
        found: heading -> annotation id -> a model's mask.
        count: rows at most.
    """
    drawn = truth.has_human_mask() & pc.equal(truth.annotations["status"], "ok").to_numpy()
    unseen = drawn & ~np.array(truth.classes.seen)[truth.labels()]
    shown = np.flatnonzero(unseen if unseen.any() else drawn)  # annotation rows
    image_of = np.searchsorted(truth.rows_by_image(), shown, side="right") - 1
    images = np.unique(image_of)
    chosen = images[np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))]
    return [_row(truth, folder, found, int(image), shown[image_of == image]) for image in chosen]


def _row(
    truth: AnnotationSet,
    folder: Path,
    found: Mapping[str, Mapping[int, Judged]],
    image: int,
    rows: np.ndarray,
) -> SheetRow:
    boxes = truth.boxes_xyxy()
    rows = np.sort(rows[np.argsort(-box_area(boxes[rows]))][:MOST_BOXES])
    table, (height, width) = truth.annotations.take(rows), truth.image_sizes()[rows[0]].tolist()
    ids = table["annotation_id"].to_pylist()
    shapes = zip(table["polygons"].to_pylist(), table["rle_counts"].to_pylist(), strict=True)
    true_masks = [mask_rle(polygons, counts, height, width)["counts"] for polygons, counts in shapes]
    columns = {
        "given boxes": Panel([Overlay(color_of(k), box=tuple(boxes[row])) for k, row in enumerate(rows)]),
        "truth": Panel([Overlay(color_of(k), counts) for k, counts in enumerate(true_masks)]),
    }
    columns |= {heading: _panel([masks.get(id) for id in ids]) for heading, masks in found.items()}
    names = dict.fromkeys(truth.classes.names[label] for label in truth.labels()[rows])
    file_name = truth.images["file_name"][image].as_py()
    together = (*boxes[rows, :2].min(axis=0), *boxes[rows, 2:].max(axis=0))
    return SheetRow(
        image=read_image(resolve_image(folder, file_name)).permute(1, 2, 0).numpy(),
        columns=columns,
        caption=", ".join(names),
        window=around(together, height, width),
    )


def _panel(masks: Sequence[Judged | None]) -> Panel:
    overlays = [Overlay(color_of(k), mask.counts) for k, mask in enumerate(masks) if mask is not None]
    return Panel(overlays, f"IoU {np.mean([0.0 if mask is None else mask.iou for mask in masks]):.2f}")
