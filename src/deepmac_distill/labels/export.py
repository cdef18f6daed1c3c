"""instances.json for the student: human masks as they were, the teacher's for the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.findings import drawn_parts, source_of
from deepmac_distill.dataset.ingest import MARK
from deepmac_distill.dataset.problems import file_name_of
from deepmac_distill.files import written_whole
from deepmac_distill.geometry.boxes import xywh_to_xyxy
from deepmac_distill.geometry.rle import encode_boxes
from deepmac_distill.labels.alignment import rows_of
from deepmac_distill.labels.quality import QUALITY, QUALITY_LOW
from deepmac_distill.labels.rules import OnRejected, Rules
from deepmac_distill.labels.table import SCHEMA_VERSION, TEACHER

Annotation = dict[str, Any]
OF_TEACHER = (TEACHER, QUALITY, QUALITY_LOW)  # keys of annotations with its mask alone
SEEN_MASK_CLASSES = "seen_mask_classes"  # whose masks the teacher saw: under that key, and in a provenance


def write_instances_json(
    source: dict[str, Any],
    labels: pa.Table,
    rules: Rules,
    path: Path,
    seen_mask_classes: tuple[str, ...] | None = None,
) -> dict[str, int]:
    """Write a COCO file with every key of the source, and count what became of the annotations.

    Human masks, crowds included, are copied as they are, with parts that nobody can use. Every annotation
    gets `iscrowd`, `area` (of the mask in pixels; of the box where there is no mask), `source`
    (human | teacher | none) and `mask_score` (null where the teacher drew nothing), and a teacher's mask
    the name of its `teacher`, and `quality` and `quality_low` where they are known. An annotation that ends
    without a mask follows `rules.on_rejected`, whether its mask was rejected or never drawn (a crowd, an
    unreadable image). Masks that an earlier teacher left in the source give way to those in `labels`, and so
    do a human's of which nothing can be used (`source_of` calls them `none`).

    Args:
        source: as `Annotations.document` gives it, hidden masks gone, its annotations valid; left as it is.
        labels: rows of LABELS_SCHEMA, with quality or without, one for each annotation of the source.
        seen_mask_classes: names of the classes whose masks the teacher saw; None: nobody knows.

    Returns:
        counts of `human`, `teacher`, `rejected` and `unlabeled` (which add up to the source's annotations),
        and of `written`.

    Raises:
        DataError: the labels are of other annotations or other images than the source's.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in source["images"]}
    rows = _rows_of(source["annotations"], sizes, labels)
    accepted = rules.accept(labels)
    drawn = labels["rle_counts"].to_pylist()
    areas, scores = labels["mask_area"].to_pylist(), labels["mask_score"].to_pylist()
    known = _known(labels)
    counts = dict.fromkeys(("human", "teacher", "rejected", "unlabeled", "written"), 0)
    annotations = []
    for annotation, row in zip(source["annotations"], rows, strict=True):
        size = sizes[annotation["image_id"]]
        score = None if scores[row] is None else float(str(np.float32(scores[row])))
        end: Annotation | None
        if source_of(_believed(annotation, MARK in source), *size) == "human":
            kind, end = "human", _human(annotation, size)
        elif accepted[row]:
            kind, end = "teacher", _teacher(annotation, size, drawn[row], areas[row], score, known[row])
        else:
            kind = "unlabeled" if drawn[row] is None else "rejected"
            end = _without_mask(annotation, size, score, rules.on_rejected)
        counts[kind] += 1
        annotations += [end] if end is not None else []
    counts["written"] = len(annotations)
    images = [image | {"file_name": file_name_of(image)} for image in source["images"]]
    mark = {"schema": SCHEMA_VERSION, SEEN_MASK_CLASSES: seen_mask_classes}
    document = source | {"images": images, "annotations": annotations, MARK: mark}
    with written_whole(path) as aside, aside.open("w", encoding="utf-8") as file:
        json.dump(document, file, separators=(",", ":"))
    return counts


def _believed(annotation: Annotation, ours: bool) -> Annotation:
    """In files of other tools a `source` does not describe masks."""
    return annotation if ours else {key: annotation[key] for key in annotation.keys() - {"source"}}


def _known(labels: pa.Table) -> list[dict[str, Any]]:
    """Of each row the name of its teacher, and its quality where that is known."""
    names = [name for name in OF_TEACHER if name in labels.column_names]
    return [
        {
            name: value if name == TEACHER else float(str(np.float32(value)))
            for name, value in row.items()
            if value is not None
        }
        for row in labels.select(names).to_pylist()
    ]


def seen_mask_classes_of(head: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Of the teacher whose masks a COCO file of ours holds: the classes whose masks it saw; None: unknown."""
    mark = head.get(MARK)
    return names_or_unknown(mark.get(SEEN_MASK_CLASSES) if isinstance(mark, dict) else None)


def names_or_unknown(found: object) -> tuple[str, ...] | None:
    """Names from a file; anything but a list of names is ignored.

    >>> names_or_unknown(["cat"]), names_or_unknown([]), names_or_unknown(None), names_or_unknown("cat")
    (('cat',), (), None, None)
    """
    return tuple(map(str, found)) if isinstance(found, list) else None


def _rows_of(annotations: list[Annotation], sizes: dict[int, tuple[int, int]], labels: pa.Table) -> list[int]:
    """The label row of each annotation."""
    image_ids = [annotation["image_id"] for annotation in annotations]
    ids, boxes = ([annotation[key] for annotation in annotations] for key in ("id", "bbox"))
    rows: list[int] = rows_of(ids, image_ids, [sizes[id] for id in image_ids], boxes, labels).tolist()
    return rows


def _human(annotation: Annotation, size: tuple[int, int]) -> Annotation:
    area = annotation.get("area")
    return annotation | {
        "iscrowd": int(annotation.get("iscrowd") or 0),
        "area": _drawn_area(annotation["segmentation"], size) if area is None else area,
        "source": "human",
        "mask_score": None,
    }


def _drawn_area(segmentation: Any, size: tuple[int, int]) -> int:
    if isinstance(segmentation, list):
        segmentation = drawn_parts(segmentation)  # pycocotools takes a part of two points for a box
    codes = coco_mask.frPyObjects(segmentation, *size) if _is_plain(segmentation) else segmentation
    return int(coco_mask.area(coco_mask.merge(codes) if isinstance(codes, list) else codes))


def _is_plain(segmentation: Any) -> bool:
    return isinstance(segmentation, list) or isinstance(segmentation["counts"], list)


def _teacher(
    annotation: Annotation,
    size: tuple[int, int],
    counts: bytes,
    area: int,
    score: float | None,
    known: Mapping[str, Any],
) -> Annotation:
    return annotation | {
        "iscrowd": int(annotation.get("iscrowd") or 0),
        "segmentation": _rle(counts, size),
        "area": area,
        "source": "teacher",
        "mask_score": score,
        **known,
    }


def _without_mask(
    annotation: Annotation, size: tuple[int, int], score: float | None, on_rejected: OnRejected
) -> Annotation | None:
    """COCO has no good form for a box without a mask; each of the three costs something."""
    _, _, box_width, box_height = annotation["bbox"]
    kept = {key: value for key, value in annotation.items() if key != "segmentation"} | {
        "iscrowd": int(annotation.get("iscrowd") or 0),
        "area": max(box_width, 0) * max(box_height, 0),
        "source": "none",
        "mask_score": score,
    }
    match on_rejected:
        case "keep_box":
            return kept
        case "drop":
            return None
        case "ignore":
            [counts] = encode_boxes(xywh_to_xyxy([annotation["bbox"]]), *size)
            return kept | {"iscrowd": 1, "segmentation": _rle(counts, size)}


def _rle(counts: bytes, size: tuple[int, int]) -> dict[str, Any]:
    return {"size": list(size), "counts": counts.decode("ascii")}
