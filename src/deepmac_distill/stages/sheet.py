"""Which images the contact sheet of a run shows, and what is drawn on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from deepmac_distill.annotations.coco import AnnotationSet
from deepmac_distill.annotations.masks import mask_rle
from deepmac_distill.data.images import read_image, resolve_image
from deepmac_distill.report.contact_sheet import Panel, SheetRow
from deepmac_distill.report.drawing import Overlay, color_of

MOST_BOXES = 12  # per image; more cannot be told apart on a sheet


def sheet_rows(
    truth: AnnotationSet, folder: Path, masks: Mapping[str, Mapping[int, bytes]], count: int
) -> list[SheetRow]:
    """Rows of image with boxes, truth, and each model's masks, for unseen classes (if there are any).

    The images are not chosen for their looks: they lie evenly over all that hold an unseen object.

    Args:
        masks: heading -> annotation id -> compressed RLE.
        count: rows at most.
    """
    drawn = truth.has_human_mask() & pc.equal(truth.annotations["status"], "ok").to_numpy()
    unseen = drawn & ~np.array(truth.classes.seen)[truth.labels()]
    shown = unseen if unseen.any() else drawn
    offsets = truth.rows_by_image()
    images = np.flatnonzero(np.add.reduceat(np.r_[shown, False], offsets[:-1]) * (np.diff(offsets) > 0))
    chosen = images[np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))]
    return [
        _row(
            truth,
            folder,
            masks,
            image,
            np.flatnonzero(shown[offsets[image] : offsets[image + 1]]) + offsets[image],
        )
        for image in chosen
    ]


def _row(
    truth: AnnotationSet, folder: Path, masks: Mapping[str, Mapping[int, bytes]], image: int, rows: np.ndarray
) -> SheetRow:
    file_name = truth.images["file_name"][int(image)].as_py()
    boxes = truth.boxes_xyxy()
    largest = sorted(rows[np.argsort(-np.prod(boxes[rows, 2:] - boxes[rows, :2], axis=1))][:MOST_BOXES])
    table = truth.annotations.take(largest)
    ids = table["annotation_id"].to_pylist()
    sizes = truth.image_sizes()[largest]
    shapes = zip(table["polygons"].to_pylist(), table["rle_counts"].to_pylist(), sizes.tolist(), strict=True)
    drawn = {
        id: mask_rle(polygons, counts, *size)["counts"]
        for id, (polygons, counts, size) in zip(ids, shapes, strict=True)
    }
    names = [truth.classes.names[label] for label in truth.labels()[largest]]
    given = [Overlay(color=color_of(k), box=tuple(boxes[row])) for k, row in enumerate(largest)]
    columns = {"given boxes": Panel(given), "truth": _panel(ids, drawn)}
    columns |= {heading: _panel(ids, found) for heading, found in masks.items()}
    pixels = read_image(resolve_image(folder, file_name)).permute(1, 2, 0).numpy()
    return SheetRow(image=pixels, columns=columns, caption=", ".join(dict.fromkeys(names)))


def _panel(ids: list[int], masks: Mapping[int, bytes]) -> Panel:
    return Panel([Overlay(color=color_of(k), counts=masks[id]) for k, id in enumerate(ids) if id in masks])
