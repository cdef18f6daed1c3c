"""Grids over boxes become rows of the label file, and COCO results: where models and annotations meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.views import Annotations, sizes_of_rows
from deepmac_distill.geometry.boxes import xywh_to_xyxy, xyxy_to_xywh
from deepmac_distill.geometry.codes import extents_of
from deepmac_distill.inference import DetectedObjects, SegmentedBoxes
from deepmac_distill.labels.cut import DEFAULT_CUT, Cut, CutMasks, box_ious, recut
from deepmac_distill.labels.table import label_table
from deepmac_distill.lattice import Lattice

LookWords = Callable[[NDArray[np.float64], NDArray[np.int64]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a teacher drew in some boxes."""

    rows: NDArray[np.int64]  # (N,) row numbers in the data set
    grids: NDArray[np.uint8]  # (N, S, S)
    answered: NDArray[np.bool_]  # (N,)
    iou: NDArray[np.float32]  # (N,) the teacher's own estimate; NaN where it makes none

    @classmethod
    def of(cls, batches: Iterable[SegmentedBoxes]) -> Drawn:
        """All that some batches hold."""
        some = list(batches)
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(batch.rows for batch in some)]),
            np.concatenate([batch.grids for batch in some] or [np.zeros((0, 1, 1), np.uint8)]),
            np.concatenate([np.zeros(0, np.bool_), *(batch.answered for batch in some)]),
            np.concatenate([np.zeros(0, np.float32), *map(_own_iou, some)]),
        )

    def where(self, kept: NDArray[np.bool_]) -> Drawn:
        """Some of them."""
        return Drawn(self.rows[kept], self.grids[kept], self.answered[kept], self.iou[kept])


def _own_iou(batch: SegmentedBoxes) -> NDArray[np.float32]:
    return np.full(len(batch.rows), np.nan, np.float32) if batch.iou is None else batch.iou


def label_unit(
    annotations: Annotations,
    rows: range,
    batches: Iterable[SegmentedBoxes],
    unreadable: Mapping[int, str],
    *,
    keep_soft: bool,
    probabilities: bool,
    lattice: Lattice,
    seen_mask_classes: Sequence[str] | None = None,
    words_of: LookWords | None = None,
    teacher: str | None = None,
) -> pa.Table:
    """The label rows of some annotations: one for each, whatever became of it.

    Args:
        rows: positions in the annotation table.
        batches: the teacher's masks, of the boxes among `rows` that it was shown; a human's mask stays.
        unreadable: image id -> why the image could not be read.
        keep_soft: keep the teacher's grids beside the masks.
        probabilities: whether grids are probabilities, so that an IoU can be expected of them.
        lattice: where the cells of the grids sample their boxes.
        seen_mask_classes: names of the classes whose masks the teacher saw; None: unknown.
        words_of: (N, 4) clipped boxes and (N, 2) image sizes -> how the teacher saw each; None: unknown.
        teacher: its name.
    """
    table = annotations.annotations.slice(rows.start, len(rows))
    human, drawn = np.asarray(pc.equal(table["source"], "human")), Drawn.of(batches)
    drawn = drawn.where(~human[drawn.rows - rows.start])
    unanswered = np.zeros(len(rows), bool)
    unanswered[drawn.rows[~drawn.answered] - rows.start] = True
    drawn = drawn.where(drawn.answered)
    position = np.full(len(rows), -1)
    position[drawn.rows - rows.start] = np.arange(len(drawn.rows))
    by_teacher = position >= 0
    lost = ~human & ~by_teacher & ~unanswered & np.isin(table["image_id"], list(unreadable))
    sizes = sizes_of_rows(annotations.images, table)  # (R, 2)
    boxes, drawn_sizes = annotations.boxes_xyxy()[drawn.rows], sizes[drawn.rows - rows.start]
    masks = recut(drawn.grids, boxes, drawn_sizes, DEFAULT_CUT, probabilities, lattice=lattice)
    codes, areas = _human_masks(table.filter(human), sizes[human])
    whose = np.where(human, human.cumsum() - 1, np.where(by_teacher, position + human.sum(), -1))
    status, reason = _what_became(table, unanswered, lost, unreadable)
    names, kept = _names(annotations, rows), lattice if keep_soft else None
    columns = {
        **{name: table[name] for name in ("annotation_id", "image_id", "category_id", "bbox")},
        **names,
        "height": sizes[:, 0],
        "width": sizes[:, 1],
        "source": np.where(human, "human", np.where(by_teacher, "teacher", "none")),
        "status": status,
        "reason": reason,
        "rle_counts": _at(whose, [*codes, *masks.counts]),
        "mask_area": _at(whose, np.r_[areas, masks.areas]),
        **_facts_of_grids(position, drawn, masks, table["bbox"], probabilities, kept),
        "teacher_saw_class": _saw(names["category_name"], by_teacher, seen_mask_classes),
        "look": _words(position, words_of(boxes, drawn_sizes) if words_of else [None] * len(boxes)),
        "teacher": _words(position, [teacher] * len(boxes)),
    }
    return label_table(columns)


def _what_became(
    table: pa.Table, unanswered: NDArray[np.bool_], lost: NDArray[np.bool_], unreadable: Mapping[int, str]
) -> tuple[pa.ChunkedArray, NDArray[np.object_]]:
    """The columns `status` and `reason`."""
    status = pc.if_else(pc.equal(table["status"], "ok"), "labeled", table["status"])
    status = pc.if_else(pa.array(unanswered), "unanswered", status)
    reason = np.array(table["reason"], dtype=object)
    reason[unanswered] = "the teacher gave no mask"
    reason[lost] = [unreadable[image_id] for image_id in table["image_id"].filter(lost).to_pylist()]
    return pc.if_else(pa.array(lost), "unreadable image", status), reason


def _words(position: NDArray[np.int64], words: Sequence[str | None]) -> pa.Array:
    return pa.array(words, pa.string()).take(pa.array(position, mask=position < 0))


def _saw(
    class_names: pa.Array, by_teacher: NDArray[np.bool_], seen_mask_classes: Sequence[str] | None
) -> pa.Array:
    if seen_mask_classes is None:
        return pa.nulls(len(class_names), pa.bool_())
    saw = pc.is_in(class_names, pa.array(list(seen_mask_classes), pa.string()))
    return pc.if_else(pa.array(by_teacher), saw, pa.scalar(None, pa.bool_()))


def _names(annotations: Annotations, rows: range) -> dict[str, pa.ChunkedArray]:
    """File and class names of some rows, so that label rows can be used without a join."""
    offsets = annotations.rows_by_image()
    images = np.searchsorted(offsets, np.arange(rows.start, rows.stop), side="right") - 1
    classes = annotations.class_index(rows)
    return {
        "file_name": annotations.images["file_name"].take(pa.array(images)),
        "category_name": pa.array(annotations.classes.names, pa.string()).take(pa.array(classes)),
    }


def _facts_of_grids(
    position: NDArray[np.int64],
    drawn: Drawn,
    masks: CutMasks,
    boxes_xywh: pa.ChunkedArray,
    probabilities: bool,
    lattice: Lattice | None,
) -> dict[str, pa.Array]:
    """Columns that a teacher's rows have; null in the others.

    Args:
        position: (R,) of a row's mask among `masks`, or -1.
        boxes_xywh: R boxes as they were given, which the mask should fill.
        lattice: of the grids; None: they are not kept.
    """
    rows = np.zeros(len(masks.counts), np.int64)
    rows[position[position >= 0]] = np.flatnonzero(position >= 0)
    given = xywh_to_xyxy(boxes_xywh.combine_chunks().flatten().to_numpy().reshape(-1, 4)[rows])
    facts: dict[str, Sequence[Any] | NDArray[Any]] = {
        "cut": masks.cuts,
        "mask_score": masks.scores,
        "mask_bbox_iou": box_ious(masks.tight_boxes, given),
    }
    if probabilities:
        facts["expected_iou"] = masks.expected_iou
    if lattice is not None:
        facts["soft"] = [grid.tobytes() for grid in drawn.grids]
        facts["soft_size"] = np.full(len(drawn.grids), drawn.grids.shape[-1], np.int32)
        facts["soft_lattice"] = np.full(len(drawn.grids), lattice)
    columns = {name: _at(position, values) for name, values in facts.items()}
    own = _at(position, drawn.iou)
    return columns | {"model_iou": pc.if_else(pc.is_nan(own), pa.scalar(None, pa.float32()), own)}


def _at(position: NDArray[np.int64], values: Sequence[Any] | NDArray[Any]) -> pa.Array:
    """(R,) the value at each position, null where it is -1."""
    kind = pa.binary() if isinstance(values, list) else None
    return pa.array(values, kind).take(pa.array(position, mask=position < 0))


def _human_masks(rows: pa.Table, sizes: NDArray[np.int64]) -> tuple[list[bytes], NDArray[np.int64]]:
    """Codes and areas of masks that people drew, at the size of their images."""
    shapes = zip(rows["polygons"].to_pylist(), rows["rle_counts"].to_pylist(), sizes.tolist(), strict=True)
    codes = [mask_rle(polygons, counts, *size)["counts"] for polygons, counts, size in shapes]
    return codes, extents_of(codes, sizes[:, 0]).areas


def given_box_masks(
    annotations: Annotations,
    segmented: Iterable[SegmentedBoxes],
    cut: Cut = DEFAULT_CUT,
    *,
    lattice: Lattice,
    probabilities: bool = True,
) -> pa.Table:
    """row, annotation_id and rle_counts of every box a model segmented, one batch in memory at a time.

    Args:
        cut, lattice, probabilities: see `cut.recut`.
    """
    boxes, sizes = annotations.boxes_xyxy(), annotations.image_sizes()
    rows: list[int] = []
    counts: list[bytes] = []
    for batch in segmented:
        answered = batch.rows[batch.answered]
        rows += answered.tolist()
        grids = batch.grids[batch.answered]
        masks = recut(grids, boxes[answered], sizes[answered], cut, probabilities, lattice=lattice)
        counts += masks.counts
    numbers = pa.array(rows, pa.int64())
    ids = annotations.annotations["annotation_id"].take(numbers)
    return pa.table({"row": numbers, "annotation_id": ids, "rle_counts": pa.array(counts, pa.binary())})


def coco_results(
    annotations: Annotations,
    detected: Iterable[DetectedObjects],
    cut: Cut = DEFAULT_CUT,
    *,
    lattice: Lattice,
) -> list[dict[str, Any]]:
    """Detections as COCO results: image_id, category_id, bbox, score and segmentation at the image's size."""
    ids, *sides = (annotations.images[name].to_numpy() for name in ("image_id", "height", "width"))
    size_of = np.stack(sides, 1).astype(np.int64)
    results = []
    for batch in detected:
        sizes = size_of[np.searchsorted(ids, batch.image_ids)]  # (D, 2)
        boxes = batch.boxes_fraction * sizes[:, [1, 0, 1, 0]]
        codes = recut(batch.grids, boxes, sizes, cut, lattice=lattice).counts
        for image_id, label, score, bbox, size, code in zip(
            batch.image_ids, batch.class_index, batch.scores, xyxy_to_xywh(boxes), sizes, codes, strict=True
        ):
            results.append(
                {
                    "image_id": int(image_id),
                    "category_id": annotations.classes.category_ids[label],
                    "bbox": [round(float(side), 3) for side in bbox],
                    "score": float(score),
                    "segmentation": {"size": size.tolist(), "counts": code.decode("ascii")},
                }
            )
    return results
