"""What a stage sees of an annotation file: training never a mask of an unseen class, evaluation all masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.chunk import overhangs, without
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.entries import Entries, annotation_entries, image_entries
from deepmac_distill.errors import DataError
from deepmac_distill.geometry.boxes import clip_boxes, xywh_to_xyxy

_OF_MASKS = ("polygons", "rle_counts", "segmentation", "area")  # columns
_ROWS_AT_ONCE = 2**16
_HIDDEN_BOX = "its box comes from a hidden mask"


@dataclass(frozen=True)
class Annotations:
    """One annotation file: images sorted by id, annotations sorted by image and then by their own id.

    Shapes below: I images, N annotations (all of them: crowds and boxes without area too).
    """

    path: Path
    images: pa.Table  # tables.IMAGES, I rows
    annotations: pa.Table  # chunk.STORED, N rows, mapped from a file
    classes: Classes
    counts: dict[str, int]  # what was found, by nature
    fingerprint: str  # hash of what is visible here: both tables and the classes
    head: dict[str, Any]  # all keys of the file but `images` and `annotations`

    def boxes_xyxy(self) -> NDArray[np.float64]:
        """Boxes clipped to their images: (N, 4) float64 xyxy in image pixels."""
        return self._boxes

    @cached_property
    def _boxes(self) -> NDArray[np.float64]:
        clipped = np.empty((len(self.annotations), 4))
        for rows, part in _parts(self.annotations):
            height, width = sizes_of_rows(self.images, part).T
            clipped[rows] = clip_boxes(xywh_to_xyxy(boxes_xywh(part)), height, width)
        return _frozen(clipped)

    def with_boxes(self, boxes_xywh: NDArray[np.float64]) -> Self:
        """The same in other boxes, (N, 4) in image pixels; all else stays, the fingerprint too."""
        flat = pa.array(np.ascontiguousarray(boxes_xywh, dtype=np.float64).ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, 4)
        position = self.annotations.schema.get_field_index("bbox")
        return replace(self, annotations=self.annotations.set_column(position, "bbox", column))

    def with_ids_of(self, classes: Classes) -> Self:
        """The same boxes, each of the class of its name; other tools number the classes of a file anew.

        Args:
            classes: of the same names.
        """
        if self.classes.category_ids == classes.category_ids and self.classes.names == classes.names:
            return self
        ids = np.array([classes.category_ids[classes.names.index(name)] for name in self.classes.names])
        position = self.annotations.schema.get_field_index("category_id")
        column = pa.array(ids[self.class_index()], self.annotations.schema.field(position).type)
        seen = dict(zip(self.classes.names, self.classes.seen, strict=True))
        number = dict(zip(classes.names, classes.category_ids, strict=True))
        named = [c | {"id": number[c["name"]]} for c in self.head["categories"] if c["name"] in number]
        return replace(
            self,
            annotations=self.annotations.set_column(position, "category_id", column),
            classes=replace(classes, seen=tuple(seen[name] for name in classes.names)),
            head=self.head | {"categories": named},
        )

    def class_index(self, rows: range | None = None) -> NDArray[np.int64]:
        """Contiguous class indices: (N,) int64, or those of some rows that follow each other."""
        ids = self.annotations["category_id"]
        some = ids if rows is None else ids.slice(rows.start, len(rows))
        index: NDArray[np.int64] = np.searchsorted(self.classes.category_ids, some.to_numpy())
        return index

    def has_mask(self) -> NDArray[np.bool_]:
        """Where there is a mask of at least one pixel, the teacher's included: (N,) bool."""
        drawn = [pc.is_valid(self.annotations[name]).to_numpy() for name in ("polygons", "rle_counts")]
        held: NDArray[np.bool_] = drawn[0] | drawn[1]
        return held

    def has_human_mask(self) -> NDArray[np.bool_]:
        """Where a person drew a mask: (N,) bool. Only these are truth."""
        return equals(self.annotations, "source", "human")

    def rows_by_image(self) -> NDArray[np.int64]:
        """Offsets (I + 1,): image i has the annotation rows [offsets[i], offsets[i + 1])."""
        return self._offsets

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        ids = self.annotations["image_id"].to_numpy()
        first = np.searchsorted(ids, self.images["image_id"].to_numpy())
        return _frozen(np.append(first, len(ids)).astype(np.int64))

    def image_sizes(self) -> NDArray[np.int64]:
        """(height, width) of the image of each annotation: (N, 2) int64."""
        return self._image_sizes

    @cached_property
    def _image_sizes(self) -> NDArray[np.int64]:
        return _frozen(sizes_of_rows(self.images, self.annotations))

    def document(self) -> dict[str, Any]:
        """The file as a COCO document, in its own order and with keys that nothing here reads.

        Masks are as they were drawn, those that are not visible here are gone with their `area`.
        """
        found = self.streamed()
        return found | {name: list(found[name]) for name in ("images", "annotations")}

    def streamed(self) -> dict[str, Any]:
        """`document`, whose images and annotations are made one after the other when they are asked for."""
        return self.head | {
            "images": Entries(self.images, image_entries),
            "annotations": Entries(
                self.annotations, lambda rows: annotation_entries(rows, sizes_of_rows(self.images, rows))
            ),
        }


class TrainingView(Annotations):
    """What may be learned from: masks of unseen classes, and all that comes of them, are not in it.

    Hidden masks are null. The file that is mapped below holds them still, so that nothing is copied in this
    process; what goes to another process leaves them behind.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Without the bytes under the nulls."""
        table = self.annotations
        for name in _OF_MASKS:
            place = table.schema.get_field_index(name)
            chunks = [chunk.take(pa.array(np.arange(len(chunk)))) for chunk in table[name].chunks]
            field = table.schema.field(name)
            table = table.set_column(place, field, pa.chunked_array(chunks, field.type))
        return {**self.__dict__, "annotations": table}


class Truth(Annotations):
    """What is measured on: masks of all classes, or of the seen classes that are hidden from training."""


def equals(table: pa.Table, column: str, value: str) -> NDArray[np.bool_]:
    """(N,) where a column of words has this one."""
    found: NDArray[np.bool_] = pc.equal(table[column], value).to_numpy()
    return found


def boxes_xywh(annotations: pa.Table) -> NDArray[np.float64]:
    """(N, 4) boxes as in the file."""
    chunks = [chunk.flatten().to_numpy() for chunk in annotations["bbox"].chunks]
    return np.concatenate([np.empty(0), *chunks]).reshape(-1, 4)


def sizes_of_rows(images: pa.Table, annotations: pa.Table) -> NDArray[np.int64]:
    """(N, 2) height and width of the image of each annotation."""
    rows = np.searchsorted(images["image_id"].to_numpy(), annotations["image_id"].to_numpy())
    sides = [images[name].to_numpy()[rows] for name in ("height", "width")]
    return np.stack(sides, axis=1).astype(np.int64)


def hidden_rows(annotations: pa.Table, classes: Classes) -> NDArray[np.bool_]:
    """(N,) rows whose masks training may not see; those of a teacher are our own."""
    unseen = [i for i, seen in zip(classes.category_ids, classes.seen, strict=True) if not seen]
    of_unseen = np.isin(annotations["category_id"].to_numpy(), unseen)
    hidden: NDArray[np.bool_] = of_unseen & ~annotations["by_teacher"].to_numpy()
    return hidden


def hide_masks(annotations: pa.Table, hidden: NDArray[np.bool_]) -> pa.Table:
    """The table without the masks of some rows, and without what they gave away."""
    if not hidden.any():
        return annotations
    starts = np.cumsum([0, *(len(chunk) for chunk in annotations["image_id"].chunks)])
    batches = [
        _hide_in_batch(batch, hidden[start : start + len(batch)])
        for start, batch in zip(starts, annotations.to_batches(), strict=False)
    ]
    return pa.Table.from_batches(batches, annotations.schema)


def _hide_in_batch(batch: pa.RecordBatch, hidden: NDArray[np.bool_]) -> pa.RecordBatch:
    if not hidden.any():
        return batch
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name in _OF_MASKS:
        columns[name] = without(columns[name], hidden)
    for name, value in (("source", "none"), ("drawn", False), ("unusable", False), ("lost_parts", 0)):
        if pc.any(pc.not_equal(columns[name], value)).as_py():  # else it stays in the mapped file
            kind = batch.schema.field(name).type
            columns[name] = pc.if_else(pa.array(hidden), pa.scalar(value, kind), columns[name])
    boxless = hidden & columns["box_from_mask"].to_numpy(zero_copy_only=False)
    if boxless.any():
        rows = pa.array(boxless)
        boxes = columns["bbox"].flatten().to_numpy().reshape(-1, 4).copy()
        boxes[boxless] = 0
        columns["bbox"] = pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4)
        crowd = pc.and_(rows, pc.invert(columns["iscrowd"]))
        columns["status"] = pc.if_else(crowd, "degenerate", columns["status"])
        columns["reason"] = pc.if_else(crowd, _HIDDEN_BOX, columns["reason"])
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)


def count(images: pa.Table, annotations: pa.Table) -> dict[str, int]:
    """What is in the tables, and what was drawn and cannot be used."""
    usable = ~equals(annotations, "status", "degenerate")
    over = np.zeros(len(annotations), np.bool_)
    for rows, part in _parts(annotations):
        over[rows] = overhangs(boxes_xywh(part), sizes_of_rows(images, part)) > 1e-6
    sources = {name: int(equals(annotations, "source", name).sum()) for name in ("human", "teacher", "none")}
    with_any = len(pc.unique(annotations["image_id"]))
    return {
        "images": len(images),
        "images_without_annotations": len(images) - with_any,
        "annotations": len(annotations),
        "crowd": int(equals(annotations, "status", "crowd").sum()),
        "degenerate": int((~usable).sum()),
        "clipped": int((over & usable).sum()),
        "human_masks": sources["human"],
        "teacher_masks": sources["teacher"],
        "without_mask": sources["none"],
        "degenerate_polygon_parts": pc.sum(annotations["lost_parts"]).as_py() or 0,
        "unusable_masks": pc.sum(annotations["unusable"]).as_py() or 0,
    }


def require_seen_masks(annotations: Annotations) -> None:
    """Refuse a set in which no usable box of a seen class has a mask: there is nothing to teach from.

    Raises:
        DataError: there is no such mask.
    """
    classes = annotations.classes
    seen = np.array(classes.seen)[annotations.class_index()]
    if not (annotations.has_mask() & equals(annotations.annotations, "status", "ok") & seen).any():
        names = ", ".join(classes.seen_names[:5]) + (", ..." if len(classes.seen_names) > 5 else "")
        raise DataError(f"{annotations.path}: no masks of the seen classes ({names}); expected at least one")


def _parts(table: pa.Table) -> Iterator[tuple[slice, pa.Table]]:
    """Some rows at a time, so that what is computed of them takes no memory for all at once."""
    for start in range(0, len(table), _ROWS_AT_ONCE):
        part = table.slice(start, _ROWS_AT_ONCE)
        yield slice(start, start + len(part)), part


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Computed once and handed to many: nobody may write to it."""
    array.flags.writeable = False
    return array
