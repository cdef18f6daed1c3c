"""The masks that every format is written from: objects by image, each with what is known of its mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.geometry.boxes import xywh_to_xyxy
from deepmac_distill.geometry.rle import encode_boxes
from deepmac_distill.labels.alignment import rows_of
from deepmac_distill.labels.export import seen_mask_classes_of
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.quality import quick_mark
from deepmac_distill.labels.rules import Rules

WithoutMask = Literal["drop", "keep", "ignore"]
FACTS = (
    *("quality", "quality_low", "mask_score", "mask_bbox_iou", "expected_iou", "model_iou"),
    *("cut", "teacher", "teacher_saw_class"),
)
_IDS = ("annotation_id", "category_id", "bbox")
_IMAGE = ("image_id", "file_name", "height", "width")


@dataclass(frozen=True, slots=True)
class MaskObject:
    """One box, and the mask in it."""

    id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # xywh, as in the source
    source: str  # who drew the mask: human | teacher | none
    rle: Mapping[str, Any] | None  # {"size": [H, W], "counts": bytes}; None: a box without a mask
    polygons: Sequence[Sequence[float]] | None = None  # as they were drawn, where the mask came so
    is_crowd: bool = False  # a crowd, or a region to ignore
    facts: Mapping[str, Any] = field(default_factory=dict)  # of FACTS, those that are known

    def attributes(self) -> dict[str, Any]:
        """What formats with attributes keep of an object."""
        return {"source": self.source, **self.facts}


@dataclass(frozen=True, slots=True)
class Picture:
    """One image and its objects."""

    id: int
    file_name: str
    height: int
    width: int
    objects: tuple[MaskObject, ...]


@dataclass(frozen=True, slots=True)
class MaskSet:
    """All images with their objects, in the order of their ids."""

    images: pa.Table  # image_id, file_name, height, width
    rows: pa.Table  # a row for each object that is written, by image
    classes: Mapping[int, str]  # category id -> name, by id
    counts: Mapping[str, int]  # of the boxes: human, teacher, rejected, unlabeled
    provenance: Mapping[str, Any]  # of the masks
    seen_mask_classes: tuple[str, ...] | None  # of the teacher; None: nobody knows
    folder: Path | None = None  # of the images, where known
    upright: bool = False  # masks are on images turned by their EXIF orientation, not on them as stored

    def pictures(self) -> Iterator[Picture]:
        """The images one after the other; their objects are made when asked for."""
        ids = self.rows["image_id"].to_numpy()
        images = self.images.select(_IMAGE).to_pylist()
        first = np.searchsorted(ids, [image["image_id"] for image in images], side="left").tolist()
        last = np.searchsorted(ids, [image["image_id"] for image in images], side="right").tolist()
        for image, start, stop in zip(images, first, last, strict=True):
            size = image["height"], image["width"]
            found = self.rows.slice(start, stop - start).to_pylist()
            objects = tuple(_object(row, size) for row in found)
            yield Picture(image["image_id"], image["file_name"], *size, objects)


def of_labels(labels: Labels, rules: Rules, without: WithoutMask, view: Annotations | None = None) -> MaskSet:
    """Human masks, and of the teacher's those that the rules accept.

    Args:
        view: the annotations that were labeled: it has images without boxes, classes without boxes, and the
            polygons that people drew. Without it all comes from the label rows.

    Raises:
        DataError: the labels are broken, or of other annotations than the view's.
    """
    table = labels.table
    if view is None:
        table = table.take(
            pc.sort_indices(table, [("image_id", "ascending"), ("annotation_id", "ascending")])
        )
        images = _images_of_rows(table)
        pairs = zip(table["category_id"].to_pylist(), table["category_name"].to_pylist(), strict=True)
        classes = dict(sorted(set(pairs)))
        polygons = pa.nulls(len(table), pa.list_(pa.list_(pa.float64())))
    else:
        boxes = pc.list_flatten(view.annotations["bbox"]).to_numpy().reshape(-1, 4)
        ids, image_ids = (view.annotations[name].to_numpy() for name in ("annotation_id", "image_id"))
        table = table.take(pa.array(rows_of(ids, image_ids, view.image_sizes(), boxes, table)))
        images = view.images
        classes = dict(zip(view.classes.category_ids, view.classes.names, strict=True))
        polygons = view.annotations["polygons"]
    human = np.asarray(pc.equal(table["source"], "human"))
    accepted = rules.accept(table)
    drawn = np.asarray(pc.is_valid(table["rle_counts"]))
    columns = {name: table[name] for name in (*_IDS, "image_id", "rle_counts", *FACTS)}
    by_person = pc.if_else(pa.array(human), polygons, pa.scalar(None, polygons.type))
    columns |= {"is_crowd": pc.equal(table["status"], "crowd"), "polygons": by_person}
    rows = pa.table(columns)
    kinds = np.select([human, accepted, drawn], ["human", "teacher", "rejected"], "unlabeled")
    sizes = np.stack([table[name].to_numpy() for name in ("height", "width")], 1).astype(np.int64)
    return MaskSet(
        images=images,
        rows=_chosen(rows, kinds, sizes, without),
        classes=classes,
        counts=_counted(kinds),
        provenance={**labels.provenance, **quick_mark(labels.quality)},
        seen_mask_classes=labels.seen_mask_classes,
    )


def of_annotations(view: Annotations, without: WithoutMask) -> MaskSet:
    """The masks of an annotation file: a teacher's where the file is one of ours, else all are human."""
    table = view.annotations
    rows = pa.table(
        {
            **{name: table[name] for name in (*_IDS, "image_id", "rle_counts", "polygons", "mask_score")},
            **{name: pa.nulls(len(table)) for name in FACTS if name != "mask_score"},
            "is_crowd": table["iscrowd"],
        }
    )
    source = np.asarray(table["source"])
    kinds = np.where(source == "none", "unlabeled", source)
    return MaskSet(
        images=view.images,
        rows=_chosen(rows, kinds, view.image_sizes(), without),
        classes=dict(zip(view.classes.category_ids, view.classes.names, strict=True)),
        counts=_counted(kinds),
        provenance={"annotations": view.path.name},
        seen_mask_classes=seen_mask_classes_of(view.head),
    )


def _counted(kinds: NDArray[np.str_]) -> dict[str, int]:
    return {kind: int((kinds == kind).sum()) for kind in ("human", "teacher", "rejected", "unlabeled")}


def _chosen(
    rows: pa.Table, kinds: NDArray[np.str_], sizes: NDArray[np.int64], without: WithoutMask
) -> pa.Table:
    """The rows that are written, with `source`, and with masks where they count."""
    if without not in get_args(WithoutMask):
        raise ValueError(f"without: got {without!r}, expected one of {get_args(WithoutMask)}")
    masked = np.isin(kinds, ("human", "teacher"))
    by_mask = pa.array(masked)
    rows = rows.append_column("source", pc.if_else(by_mask, pa.array(kinds.tolist(), pa.string()), "none"))
    counts = pc.if_else(by_mask, rows["rle_counts"], pa.scalar(None, pa.binary()))
    if without == "ignore":
        boxes = xywh_to_xyxy(pc.list_flatten(rows["bbox"]).to_numpy().reshape(-1, 4)[~masked])
        regions = np.full(len(rows), None, dtype=object)
        regions[~masked] = encode_boxes(boxes, *sizes[~masked].T)
        counts = pc.if_else(by_mask, counts, pa.array(regions, pa.binary()))
        crowd = pc.or_(rows["is_crowd"], pc.invert(by_mask))
        rows = rows.set_column(rows.schema.get_field_index("is_crowd"), "is_crowd", crowd)
    rows = rows.set_column(rows.schema.get_field_index("rle_counts"), "rle_counts", counts)
    kind = rows.schema.field("polygons").type
    polygons = pc.if_else(by_mask, rows["polygons"], pa.scalar(None, kind))
    rows = rows.set_column(rows.schema.get_field_index("polygons"), "polygons", polygons)
    return rows.filter(by_mask) if without == "drop" else rows


def _images_of_rows(table: pa.Table) -> pa.Table:
    ids = table["image_id"].to_numpy()
    return table.select(_IMAGE).take(pa.array(np.unique(ids, return_index=True)[1]))


def _object(row: dict[str, Any], size: tuple[int, int]) -> MaskObject:
    polygons, counts = row["polygons"], row["rle_counts"]
    held = polygons is not None or counts is not None
    return MaskObject(
        id=row["annotation_id"],
        category_id=row["category_id"],
        bbox=tuple(row["bbox"]),
        source=row["source"],
        rle=mask_rle(polygons, counts, *size) if held else None,
        polygons=polygons,
        is_crowd=row["is_crowd"],
        facts={name: _short(row[name]) for name in FACTS if row[name] is not None},
    )


def _short(value: Any) -> Any:
    """A float32 as the shortest decimal that it is."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
