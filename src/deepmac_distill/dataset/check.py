"""Everything that is wrong with an annotation file, or may surprise, before a GPU is warmed for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.cache import TableCache
from deepmac_distill.dataset.choice import MIN_MASKS
from deepmac_distill.dataset.classes import Classes, SeenSpec
from deepmac_distill.dataset.dataset import Dataset, problems_of, seen_choice
from deepmac_distill.dataset.document import BrokenDocument
from deepmac_distill.dataset.image_entries import SizeSource
from deepmac_distill.dataset.polygons import FlatPolygons
from deepmac_distill.dataset.problems import Level, Problem, category_problems
from deepmac_distill.dataset.tables import Tables
from deepmac_distill.dataset.views import Annotations, boxes_xywh, equals, require_seen_masks, sizes_of_rows
from deepmac_distill.errors import DataError
from deepmac_distill.printable import printable

MIN_MASK_BOX_IOU = 0.5


def find_problems(
    path: Path,
    seen: SeenSpec,
    other: Path | None = None,
    *,
    hide: Sequence[str] = (),
    strict: bool = False,
    sizes: SizeSource | None = None,
    cache: Path | None = None,
) -> list[Problem]:
    """All problems of a file, errors first; without one `Dataset.open` (as `strict`) and its views take it.

    Masks of unseen classes are looked at too: this is a report for people, and nothing learns from it.

    Args:
        other: a second file that must share no image with this one, such as the validation set.
        hide: see `choice.hidden_names`.
    """
    try:
        tables, _ = TableCache(cache).tables(path, sizes)
    except BrokenDocument as error:
        return list(error.problems)
    found = [*_class_errors(tables, path, seen), *problems_of(tables, path, strict=strict)]
    if not any(problem.level == "error" for problem in found):
        dataset = Dataset.open(path, seen=seen, strict=strict, sizes=sizes, cache=cache)
        found += [Problem("note", str(path), note.removeprefix(f"{path}: ")) for note in dataset.notes]
        truth = dataset.for_evaluation(dataset.hidden_names(hide))
        found += chain(_mask_problems(truth), _class_problems(truth))
        found += _leak_problems(path, other, cache) if other is not None else []
    return sorted(found, key=lambda problem: ("error", "warning", "note").index(problem.level))


def leaked_images(path: Path, other: Path, cache: Path | None = None) -> list[Problem]:
    """Images that two files share by name: what is measured on one must not be learned from the other.

    Raises:
        DataError: one of the files is not a COCO file.
    """
    kept = TableCache(cache)
    first, second = (set(kept.tables(file)[0].images["file_name"].to_pylist()) for file in (path, other))
    shared = sorted(first & second)
    if not shared:
        return []
    message = f"{len(shared)} images are in {other} too, such as {shared[0]}; expected none"
    return [Problem("warning", str(path), message)]


def class_counts(annotations: Annotations) -> pa.Table:
    """One row per class by class index: name, seen, boxes (usable), masks (of those), crowd, degenerate."""
    classes, index = annotations.classes, annotations.class_index()
    status = {name: equals(annotations.annotations, "status", name) for name in ("ok", "crowd", "degenerate")}
    groups = {"boxes": status["ok"], "masks": status["ok"] & annotations.has_mask()} | {
        name: status[name] for name in ("crowd", "degenerate")
    }
    counted = {name: np.bincount(index[rows], minlength=len(classes)) for name, rows in groups.items()}
    return pa.table({"name": classes.names, "seen": classes.seen, **counted})


def class_statistics(annotations: Annotations) -> pa.Table:
    """One row per class by class index: name, seen, boxes (usable), masks (of those), median_px.

    `median_px` is the median over the usable boxes of the side of a square of the box's area, in pixels; null
    without a box.
    """
    counts = class_counts(annotations).select(["name", "seen", "boxes", "masks"])
    usable = equals(annotations.annotations, "status", "ok")
    x1, y1, x2, y2 = annotations.boxes_xyxy()[usable].T
    sides, index = np.sqrt((x2 - x1) * (y2 - y1)), annotations.class_index()[usable]
    order = np.argsort(index, kind="stable")
    groups = np.split(sides[order], np.searchsorted(index[order], np.arange(1, len(counts))))
    medians = [float(np.median(group)) if len(group) else None for group in groups]
    return counts.append_column("median_px", pa.array(medians, pa.float64()))


def _refusal(level: Level, path: Path, error: DataError) -> Problem:
    return Problem(level, str(path), str(error).removeprefix(printable(f"{path}: ")))


def _leak_problems(path: Path, other: Path, cache: Path | None) -> list[Problem]:
    try:
        return leaked_images(path, other, cache)
    except DataError as error:
        return [_refusal("error", other, error)]


def _class_errors(tables: Tables, path: Path, seen: SeenSpec) -> list[Problem]:
    if of_categories := list(category_problems(tables.categories, str(path))):
        return of_categories
    try:
        choice = seen_choice(tables, seen, MIN_MASKS, str(path))
        Classes.from_categories(tables.categories, choice.seen, str(path))
    except DataError as error:
        return [_refusal("error", path, error)]
    return []


def _mask_problems(truth: Annotations) -> Iterator[Problem]:
    """Masks outside their boxes: one of the two belongs to another object."""
    table = truth.annotations
    tight, boxes = _tight_boxes(truth), boxes_xywh(table)
    ious = _ious(tight, boxes)
    examined = truth.has_mask() & equals(table, "status", "ok")
    for row in np.flatnonzero(examined & (ious < MIN_MASK_BOX_IOU)).tolist():
        shown = [round(value, 2) for value in tight[row].tolist()]
        bbox, name = boxes[row].tolist(), table["annotation_id"][row].as_py()
        message = f"its mask fills {shown}, IoU {ious[row]:.2f} with bbox {bbox}; expected {MIN_MASK_BOX_IOU}"
        yield Problem("warning", f"{truth.path}: annotation {name}", message)


def _tight_boxes(truth: Annotations) -> NDArray[np.float64]:
    """(N, 4) xywh that masks fill; nan without a mask."""
    table, sizes = truth.annotations, sizes_of_rows(truth.images, truth.annotations)
    found = [np.empty((0, 4))]
    for chunk in table["polygons"].chunks:
        bounds = FlatPolygons.of(chunk).row_bounds()
        bounds[:, 2:] -= bounds[:, :2]
        bounds[chunk.is_null().to_numpy(zero_copy_only=False)] = np.nan
        found.append(bounds)
    boxes = np.concatenate(found)
    counts = table["rle_counts"]
    for row in np.flatnonzero(counts.is_valid().to_numpy()).tolist():
        boxes[row] = coco_mask.toBbox({"size": sizes[row].tolist(), "counts": counts[row].as_py()})
    return boxes


def _ious(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) IoU of pairs of xywh boxes."""
    overlap = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    overlap -= np.maximum(first[:, :2], second[:, :2])
    shared = np.maximum(overlap, 0).prod(axis=1)
    united = first[:, 2:].prod(axis=1) + second[:, 2:].prod(axis=1) - shared
    return np.asarray(shared / np.maximum(united, 1e-12))


def _class_problems(truth: Annotations) -> Iterator[Problem]:
    try:
        require_seen_masks(truth)
    except DataError as error:
        yield _refusal("warning", truth.path, error)
    rows = class_counts(truth).to_pylist()
    for row in rows:
        where = f"{truth.path}: class {row['name']}"
        if row["boxes"] == 0:
            yield Problem("note", where, "no usable boxes; nothing is learned or measured of it")
        elif row["seen"] and row["masks"] == 0:
            yield Problem("warning", where, f"seen, but none of its {row['boxes']} boxes has a mask")
    hidden = sum(row["masks"] for row in rows if not row["seen"])
    if hidden:
        yield Problem("note", str(truth.path), f"{hidden} masks of unseen classes are never trained on")
    empty = truth.counts["images_without_annotations"]
    if empty:
        yield Problem("note", str(truth.path), f"{empty} images have no annotations")
