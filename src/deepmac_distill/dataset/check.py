"""Everything that is wrong with an annotation file, or may surprise, before a GPU is warmed for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.classes import Classes, SeenSpec
from deepmac_distill.dataset.coco import (
    Annotations,
    build_annotation_set,
    parse_json,
    require_seen_masks,
)
from deepmac_distill.dataset.problems import (
    Level,
    Problem,
    annotation_problems,
    category_problems,
    document_problems,
    file_name_of,
    image_problems,
)
from deepmac_distill.errors import DataError

MIN_MASK_BOX_IOU = 0.5


def find_problems(
    path: Path, seen: SeenSpec, other: Path | None = None, *, strict: bool = False
) -> list[Problem]:
    """All problems of a file, errors first; without an error `read_coco` (as `strict`) takes it.

    Masks of unseen classes are looked at too: this is a report for people, and nothing learns from it.

    Args:
        other: a second file that must share no image with this one, such as the validation set.
    """
    try:
        raw = parse_json(path)
    except DataError as error:
        return [_refusal("error", path, error)]
    found = list(document_problems(raw, path))
    if not found:
        found = [*_content_problems(raw, path, seen, strict)]
    if not any(problem.level == "error" for problem in found):
        annotation_set = build_annotation_set(
            raw, path, Classes.from_categories(raw["categories"], seen, str(path))
        )
        found += chain(_mask_problems(annotation_set), _class_problems(annotation_set))
        found += _leak_problems(path, other) if other is not None else []
    return sorted(found, key=lambda problem: ("error", "warning", "note").index(problem.level))


def leaked_images(path: Path, other: Path) -> list[Problem]:
    """Images that two files share by name: what is measured on one must not be learned from the other.

    Raises:
        DataError: one of the files is not a COCO file.
    """
    first, second = ({str(file_name_of(image)) for image in _images_of(file)} for file in (path, other))
    shared = sorted(first & second)
    if not shared:
        return []
    message = f"{len(shared)} images are in {other} too, such as {shared[0]}; expected none"
    return [Problem("warning", str(path), message)]


def class_counts(annotation_set: Annotations) -> pa.Table:
    """One row per class in label order: name, seen, boxes (usable), masks (of those), crowd, degenerate."""
    classes, labels = annotation_set.classes, annotation_set.class_index()
    status = {
        name: pc.equal(annotation_set.annotations["status"], name).to_numpy()
        for name in ("ok", "crowd", "degenerate")
    }
    groups = {"boxes": status["ok"], "masks": status["ok"] & annotation_set.has_mask()} | {
        name: status[name] for name in ("crowd", "degenerate")
    }
    counted = {name: np.bincount(labels[rows], minlength=len(classes)) for name, rows in groups.items()}
    return pa.table({"name": classes.names, "seen": classes.seen, **counted})


def _images_of(path: Path) -> list[dict[str, Any]]:
    raw = parse_json(path)
    for problem in document_problems(raw, path):
        raise DataError(str(problem))
    return raw["images"]


def _refusal(level: Level, path: Path, error: DataError) -> Problem:
    return Problem(level, str(path), str(error).removeprefix(f"{path}: "))


def _leak_problems(path: Path, other: Path) -> list[Problem]:
    try:
        return leaked_images(path, other)
    except DataError as error:
        return [_refusal("error", other, error)]


def _content_problems(raw: dict[str, Any], path: Path, seen: SeenSpec, strict: bool) -> Iterator[Problem]:
    of_categories = list(category_problems(raw["categories"], str(path)))
    yield from of_categories
    if not of_categories:
        try:
            Classes.from_categories(raw["categories"], seen, str(path))
        except DataError as error:
            yield _refusal("error", path, error)
    yield from image_problems(raw["images"], path)
    yield from annotation_problems(raw, path, strict=strict)


def _mask_problems(annotation_set: Annotations) -> Iterator[Problem]:
    """Masks that lie elsewhere than their boxes: one of the two belongs to another object."""
    table, sizes = annotation_set.annotations, annotation_set.image_sizes()
    rows = np.flatnonzero(annotation_set.has_mask() & pc.equal(table["status"], "ok").to_numpy())
    table, sizes = table.take(rows), sizes[rows]
    columns = (table[name].to_pylist() for name in ("annotation_id", "bbox", "polygons", "rle_counts"))
    for annotation_id, bbox, polygons, counts, size in zip(*columns, sizes.tolist(), strict=True):
        tight = _tight_box_xywh(polygons, counts, size)
        iou = coco_mask.iou([tight], [bbox], [0]).item()
        if iou < MIN_MASK_BOX_IOU:
            shown = [round(value, 2) for value in tight]
            message = f"its mask fills {shown}, IoU {iou:.2f} with bbox {bbox}; expected {MIN_MASK_BOX_IOU}"
            yield Problem("warning", f"{annotation_set.path}: annotation {annotation_id}", message)


def _tight_box_xywh(polygons: list[list[float]] | None, counts: bytes | None, size: list[int]) -> list[float]:
    if polygons is None:
        return coco_mask.toBbox({"size": size, "counts": counts}).tolist()
    points = np.concatenate([np.reshape(part, (-1, 2)) for part in polygons])  # (P, 2) x, y
    return [*points.min(axis=0).tolist(), *np.ptp(points, axis=0).tolist()]


def _class_problems(annotation_set: Annotations) -> Iterator[Problem]:
    try:
        require_seen_masks(annotation_set)
    except DataError as error:
        yield Problem(
            "warning", str(annotation_set.path), str(error).removeprefix(f"{annotation_set.path}: ")
        )
    rows = class_counts(annotation_set).to_pylist()
    for row in rows:
        where = f"{annotation_set.path}: class {row['name']}"
        if row["boxes"] == 0:
            yield Problem("note", where, "no usable boxes; nothing is learned or measured of it")
        elif row["seen"] and row["masks"] == 0:
            yield Problem("warning", where, f"seen, but none of its {row['boxes']} boxes has a mask")
    hidden = sum(row["masks"] for row in rows if not row["seen"])
    if hidden:
        yield Problem(
            "note", str(annotation_set.path), f"{hidden} masks of unseen classes are never trained on"
        )
    empty = annotation_set.counts["images_without_annotations"]
    if empty:
        yield Problem("note", str(annotation_set.path), f"{empty} images have no annotations")
