"""instances.json for the student: human masks as they were, the teacher's for the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.entries import AT_ONCE, ChosenRows
from deepmac_distill.dataset.findings import drawn_parts
from deepmac_distill.dataset.ingest import MARK
from deepmac_distill.dataset.off_box import has_human_mask
from deepmac_distill.dataset.problems import file_name_of
from deepmac_distill.files import written_whole
from deepmac_distill.geometry.boxes import xywh_to_xyxy
from deepmac_distill.geometry.rle import encode_boxes
from deepmac_distill.labels.alignment import LabelRows
from deepmac_distill.labels.quality import QUALITY, QUALITY_LOW
from deepmac_distill.labels.rules import THRESHOLDS, OnRejected, Rules
from deepmac_distill.labels.table import SCHEMA_VERSION, TEACHER

Annotation = dict[str, Any]
_encoded = json.JSONEncoder(separators=(",", ":")).encode
OF_TEACHER = (TEACHER, QUALITY, QUALITY_LOW)  # keys of annotations with its mask alone
SEEN_MASK_CLASSES = "seen_mask_classes"  # whose masks the teacher saw: under that key, and in a provenance


def write_instances_json(
    source: dict[str, Any],
    labels: pa.Table,
    rules: Rules,
    path: Path,
    seen_mask_classes: tuple[str, ...] | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
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
        source: as `Annotations.document` or `streamed` gives it, hidden masks gone, its annotations valid;
            left as it is.
        labels: rows of LABELS_SCHEMA, with quality or without, one for each annotation of the source.
        seen_mask_classes: names of the classes whose masks the teacher saw; None: nobody knows.
        more: what the file states beside it.

    Returns:
        counts of `human`, `teacher`, `rejected` and `unlabeled` (which add up to the source's annotations),
        and of `written`.

    Raises:
        DataError: the labels are of other annotations or other images than the source's.
    """
    counts = dict.fromkeys(("human", "teacher", "rejected", "unlabeled", "written"), 0)
    images = (image | {"file_name": file_name_of(image)} for image in source["images"])
    mark = {"schema": SCHEMA_VERSION, SEEN_MASK_CLASSES: seen_mask_classes, **more}
    document = source | {"images": images, MARK: mark}
    document["annotations"] = _chosen(source, labels, rules, counts)
    with written_whole(path) as aside, aside.open("w", encoding="utf-8") as file:
        for number, (key, value) in enumerate(document.items()):
            file.write(f"{',' if number else '{'}{_encoded(key)}:")
            if key in ("images", "annotations"):
                _write_list(file, value)
            else:
                file.write(_encoded(value))
        file.write("}")
    return counts


def _write_list(file: TextIO, entries: Iterable[Annotation]) -> None:
    """A list of any length, of which one entry is in memory at a time."""
    file.write("[")
    for number, entry in enumerate(entries):
        file.write(f"{',' if number else ''}{_encoded(entry)}")
    file.write("]")


def _chosen(
    source: Mapping[str, Any], labels: pa.Table, rules: Rules, counts: dict[str, int]
) -> Iterator[Annotation]:
    """The annotations that are written, and in `counts` what became of all of them."""
    ids, sizes = _sizes(source["images"])
    found, held, ours = LabelRows(labels), ChosenRows(labels.select(_columns(labels))), MARK in source
    entries, total = iter(source["annotations"]), 0
    while some := list(islice(entries, AT_ONCE)):
        total += len(some)
        of_images = np.array([annotation["image_id"] for annotation in some])
        of_size = sizes[ids.searchsorted(of_images)]
        boxes = [annotation["bbox"] for annotation in some]
        rows = held.take(found.of([annotation["id"] for annotation in some], of_images, of_size, boxes))
        columns = (rows[name].to_pylist() for name in ("rle_counts", "mask_area", "mask_score"))
        accepted_rows = rules.accept(rows).tolist()
        human = has_human_mask([_believed(annotation, ours) for annotation in some], of_size).tolist()
        facts = zip(some, of_size.tolist(), human, accepted_rows, *columns, _known(rows), strict=True)
        for annotation, (height, width), own, accepted, drawn, area, score, more in facts:
            kind, end = _end_of(
                annotation, (height, width), own, accepted, drawn, area, score, more, rules.on_rejected
            )
            counts[kind] += 1
            if end is not None:
                counts["written"] += 1
                yield end
    found.require_no_others(total)


def _end_of(
    annotation: Annotation,
    size: tuple[int, int],
    own: bool,
    accepted: bool,
    drawn: bytes | None,
    area: int,
    score: float | None,
    known: Mapping[str, Any],
    on_rejected: OnRejected,
) -> tuple[str, Annotation | None]:
    """What becomes of an annotation, and how it is written."""
    score = None if score is None else float(str(np.float32(score)))
    if own:
        return "human", _human(annotation, size)
    if accepted:
        assert drawn is not None
        return "teacher", _teacher(annotation, size, drawn, area, score, known)
    kind = "unlabeled" if drawn is None else "rejected"
    return kind, _without_mask(annotation, size, score, on_rejected)


def _sizes(images: Iterable[Mapping[str, Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(I,) ids in their order, and (I, 2) height and width of each."""
    flat = (number for image in images for number in (image["id"], image["height"], image["width"]))
    found = np.fromiter(flat, np.int64).reshape(-1, 3)
    found = found[found[:, 0].argsort()]
    return found[:, 0], found[:, 1:]


def _columns(labels: pa.Table) -> list[str]:
    """Of a label row what is looked at here."""
    known = ("source", "status", "rle_counts", "mask_area", "mask_score", *THRESHOLDS.values(), *OF_TEACHER)
    return [name for name in labels.column_names if name in known]


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
