"""A COCO or LVIS file as two Arrow tables; masks of unseen classes never get past this file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.classes import Classes, SeenSpec
from deepmac_distill.dataset.problems import (
    annotation_problems,
    degenerate_parts,
    degenerate_reason,
    document_problems,
    drawn_parts,
    file_name_of,
    image_problems,
    is_blank,
    is_id,
    overhang_px,
    runs_of,
)
from deepmac_distill.errors import DataError
from deepmac_distill.geometry.boxes import clip_boxes, xywh_to_xyxy

IMAGES_SCHEMA = pa.schema(
    {"image_id": pa.int64(), "file_name": pa.string(), "height": pa.int32(), "width": pa.int32()}
)
ANNOTATIONS_SCHEMA = pa.schema(
    {
        "annotation_id": pa.int64(),
        "image_id": pa.int64(),
        "category_id": pa.int32(),
        "bbox": pa.list_(pa.float64(), 4),  # xywh, as in the file
        "area": pa.float64(),  # the mask's, as in the file; null where hidden or absent
        "iscrowd": pa.bool_(),
        "status": pa.string(),  # ok | crowd | degenerate
        "reason": pa.string(),  # why not ok, or empty
        "polygons": pa.list_(pa.list_(pa.float64())),  # drawn parts of flat x, y; null without polygons
        "rle_counts": pa.binary(),  # compressed COCO counts at the image's size; null without
        "source": pa.string(),  # human | teacher | none
        "mask_score": pa.float32(),
    }
)


@dataclass(frozen=True)
class Annotations:
    """One annotation file: images sorted by id, annotations sorted by image and then by their own id.

    Shapes below: I images, N annotations (all of them: crowds and boxes without area too).
    """

    path: Path
    images: pa.Table  # IMAGES_SCHEMA, I rows
    annotations: pa.Table  # ANNOTATIONS_SCHEMA, N rows
    classes: Classes
    counts: dict[str, int]  # what was found, by nature
    content_sha256: str  # of the two tables and the classes, hidden masks already gone

    def boxes_xyxy(self) -> NDArray[np.float64]:
        """Boxes clipped to their images: (N, 4) float64 xyxy in image pixels."""
        return self._boxes

    @cached_property
    def _boxes(self) -> NDArray[np.float64]:
        boxes_xywh = self.annotations["bbox"].combine_chunks().flatten().to_numpy().reshape(-1, 4)
        return _frozen(clip_boxes(xywh_to_xyxy(boxes_xywh), *self._image_sizes.T))

    def class_index(self) -> NDArray[np.int64]:
        """Contiguous class indices: (N,) int64."""
        return np.searchsorted(self.classes.category_ids, self.annotations["category_id"].to_numpy())

    def has_mask(self) -> NDArray[np.bool_]:
        """Where a mask can be used, the teacher's included: (N,) bool."""
        drawn = [pc.is_valid(self.annotations[name]).to_numpy() for name in ("polygons", "rle_counts")]
        return drawn[0] | drawn[1]

    def has_human_mask(self) -> NDArray[np.bool_]:
        """Where a person drew a mask: (N,) bool. Only these are truth."""
        return pc.equal(self.annotations["source"], "human").to_numpy()

    def rows_by_image(self) -> NDArray[np.int64]:
        """Offsets (I + 1,): image i has the annotation rows [offsets[i], offsets[i + 1])."""
        ids = self.annotations["image_id"].to_numpy()
        return np.r_[np.searchsorted(ids, self.images["image_id"].to_numpy()), len(ids)].astype(np.int64)

    def image_sizes(self) -> NDArray[np.int64]:
        """(height, width) of the image of each annotation: (N, 2) int64."""
        return self._image_sizes

    @cached_property
    def _image_sizes(self) -> NDArray[np.int64]:
        rows = np.repeat(np.arange(len(self.images)), np.diff(self.rows_by_image()))
        sides = [self.images[name].to_numpy()[rows] for name in ("height", "width")]
        return _frozen(np.stack(sides, axis=1).astype(np.int64))


def _frozen(array: NDArray) -> NDArray:
    """Computed once and handed to many: nobody may write to it."""
    array.flags.writeable = False
    return array


def read_coco(path: Path, seen: SeenSpec, *, strict: bool = False, hide_unseen: bool = True) -> Annotations:
    """Read a COCO, LVIS v1 or boxes-only file.

    Boxes without area stay, with status `degenerate`; boxes over the edge stay as written and are counted
    as `clipped`; polygon parts of fewer than three points are dropped and counted. With `strict` boxes
    without area, an overhang of more than a pixel and such parts are refused. A mask of which no part is
    left, or whose runs hold no pixel, counts as no mask, and as an `unusable` one.

    Raises:
        DataError: the first thing wrong with the file: where, what was got, what was expected.
    """
    raw, classes, hidden_masks = _load(path, seen, hide_unseen)
    for problem in chain(image_problems(raw["images"], path), annotation_problems(raw, path, strict=strict)):
        if problem.level == "error":
            raise DataError(str(problem))
    return build_annotation_set(raw, path, classes, hidden_masks)


def load_coco_json(path: Path, seen: SeenSpec, hide_unseen: bool = True) -> dict[str, Any]:
    """The parsed file, masks of unseen classes already gone.

    An annotation of an unseen class loses `segmentation` and `area` (which is the mask's), unless its
    `source` is `teacher`: that mask is our own.

    Raises:
        DataError: no such file, no JSON, no COCO object, or classes that do not fit `seen`.
    """
    return _load(path, seen, hide_unseen)[0]


def parse_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; expected a COCO JSON file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}; expected a COCO JSON file") from error


def require_seen_masks(annotation_set: Annotations) -> None:
    """Refuse a set in which no usable box of a seen class has a mask: there is nothing to teach from.

    Raises:
        DataError: there is no such mask.
    """
    classes = annotation_set.classes
    usable = pc.equal(annotation_set.annotations["status"], "ok").to_numpy()
    seen = np.array(classes.seen)[annotation_set.class_index()]
    if not (annotation_set.has_mask() & usable & seen).any():
        names = ", ".join(classes.seen_names[:5]) + (", ..." if len(classes.seen_names) > 5 else "")
        raise DataError(
            f"{annotation_set.path}: no masks of the seen classes ({names}); expected at least one"
        )


def source_of(annotation: dict[str, Any]) -> str:
    """Who drew the mask of a valid annotation: `human`, `teacher` or `none`.

    A mask that does not say is a person's. One that says `none` is a region to ignore that an export made of
    a box. A run-length mask without a pixel, or polygons of fewer than three points, are no mask.
    """
    stated = annotation.get("source")
    if stated == "none" or not _holds_mask(annotation.get("segmentation")):
        return "none"
    return "teacher" if stated == "teacher" else "human"


def _holds_mask(segmentation: Any) -> bool:
    if is_blank(segmentation):
        return False
    if isinstance(segmentation, list):
        return bool(drawn_parts(segmentation))
    return bool(runs_of(segmentation, *segmentation["size"])[1::2].any())


def _load(path: Path, seen: SeenSpec, hide_unseen: bool) -> tuple[dict[str, Any], Classes, int]:
    raw = parse_json(path)
    for problem in document_problems(raw, path):
        raise DataError(str(problem))
    classes = Classes.from_categories(raw["categories"], seen, str(path))
    return raw, classes, _hide_masks(raw["annotations"], classes) if hide_unseen else 0


def _hide_masks(annotations: list[dict[str, Any]], classes: Classes) -> int:
    """Drop, in place, what the masks of unseen classes say; how many had one."""
    seen_ids = {i for i, seen in zip(classes.category_ids, classes.seen, strict=True) if seen}
    hidden = 0
    for annotation in annotations:
        category_id = annotation.get("category_id")
        if (is_id(category_id) and category_id in seen_ids) or annotation.get("source") == "teacher":
            continue
        annotation.pop("area", None)
        hidden += not is_blank(annotation.pop("segmentation", None))
    return hidden


def build_annotation_set(
    raw: dict[str, Any], path: Path, classes: Classes, hidden_masks: int = 0
) -> Annotations:
    """The tables of a parsed file in which no check found an error."""
    images = sorted(raw["images"], key=lambda image: image["id"])
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    annotations = sorted(raw["annotations"], key=lambda a: (a["image_id"], a["id"]))
    image_rows = [
        {"image_id": i["id"], "file_name": file_name_of(i), "height": i["height"], "width": i["width"]}
        for i in images
    ]
    image_table = pa.Table.from_pylist(image_rows, IMAGES_SCHEMA)
    columns = zip(*(_row(a, *sizes[a["image_id"]]) for a in annotations), strict=True)
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, ANNOTATIONS_SCHEMA, strict=False)
    ]
    table = pa.table(arrays, ANNOTATIONS_SCHEMA) if annotations else ANNOTATIONS_SCHEMA.empty_table()
    counts = _counts(image_table, table, sizes) | _lost(annotations, table["source"].to_pylist())
    counts |= {"hidden_masks": hidden_masks}
    return Annotations(path, image_table, table, classes, counts, _sha256(image_table, table, classes))


def _row(annotation: dict[str, Any], height: int, width: int) -> tuple[Any, ...]:
    """The values of ANNOTATIONS_SCHEMA, in its order."""
    crowd = bool(annotation.get("iscrowd", 0))
    reason = "iscrowd is 1" if crowd else degenerate_reason(annotation["bbox"], height, width)
    source = source_of(annotation)
    segmentation = annotation["segmentation"] if source != "none" else None
    return (
        annotation["id"],
        annotation["image_id"],
        annotation["category_id"],
        annotation["bbox"],
        annotation.get("area"),
        crowd,
        "crowd" if crowd else "degenerate" if reason else "ok",
        reason,
        drawn_parts(segmentation) if isinstance(segmentation, list) else None,
        _compressed(segmentation) if isinstance(segmentation, dict) else None,
        source,
        annotation.get("mask_score"),
    )


def _compressed(rle: dict[str, Any]) -> bytes:
    if isinstance(rle["counts"], str):
        return rle["counts"].encode("ascii")
    return coco_mask.frPyObjects(rle, *rle["size"])["counts"]


def _counts(images: pa.Table, annotations: pa.Table, sizes: dict[int, tuple[int, int]]) -> dict[str, int]:
    status, source = annotations["status"].to_pylist(), annotations["source"].to_pylist()
    image_ids = annotations["image_id"].to_pylist()
    boxes = zip(annotations["bbox"].to_pylist(), image_ids, status, strict=True)
    return {
        "images": len(images),
        "images_without_annotations": len(images) - len(set(image_ids)),
        "annotations": len(annotations),
        "crowd": status.count("crowd"),
        "degenerate": status.count("degenerate"),
        "clipped": sum(overhang_px(b, *sizes[i]) > 1e-6 for b, i, kind in boxes if kind != "degenerate"),
        "human_masks": source.count("human"),
        "teacher_masks": source.count("teacher"),
        "without_mask": source.count("none"),
    }


def _lost(annotations: list[dict[str, Any]], sources: list[str]) -> dict[str, int]:
    """What was drawn and cannot be used; `sources` are what `source_of` says of the annotations."""
    drawn = [
        (annotation["segmentation"], source)
        for annotation, source in zip(annotations, sources, strict=True)
        if annotation.get("source") != "none" and not is_blank(annotation.get("segmentation"))
    ]
    return {
        "degenerate_polygon_parts": sum(degenerate_parts(segmentation) for segmentation, _ in drawn),
        "unusable_masks": sum(source == "none" for _, source in drawn),
    }


class _HashingFile:
    """The least that Arrow asks of a file, so that a table is hashed without a copy of it."""

    closed = False

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """There is nothing to close."""


def _sha256(images: pa.Table, annotations: pa.Table, classes: Classes) -> str:
    file = _HashingFile()
    file.write(json.dumps([classes.names, classes.category_ids, classes.seen]).encode())
    for table in (images, annotations):
        with pa.ipc.new_stream(pa.PythonFile(file, mode="w"), table.schema) as stream:
            stream.write_table(table)
    return file.digest.hexdigest()
