"""Grids over boxes become rows of the label file, and COCO results: where models and annotations meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.coco import Annotations
from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.geometry.boxes import box_area, xywh_to_xyxy, xyxy_to_xywh
from deepmac_distill.geometry.rle import encode_grids
from deepmac_distill.inference import DetectedObjects, SegmentedBoxes
from deepmac_distill.labels.table import label_table

STORED_THRESHOLD = 0.5  # of the masks in masks.parquet; another one is applied to the soft grids when reading


@dataclass(frozen=True, slots=True)
class BoxMasks:
    """Masks of given boxes, found by annotation id."""

    rows: Mapping[int, int]  # annotation id -> position in `grids`
    grids: np.ndarray  # (N, S, S) uint8

    @classmethod
    def of(cls, segmented: Iterable[SegmentedBoxes]) -> BoxMasks:
        """All the masks of some batches."""
        batches = list(segmented)
        ids = np.concatenate([batch.annotation_ids for batch in batches] or [np.zeros(0, np.int64)])
        grids = np.concatenate([batch.grids for batch in batches] or [np.zeros((0, 1, 1), np.uint8)])
        return cls({int(id): row for row, id in enumerate(ids)}, grids)


def label_unit(
    annotations: Annotations, rows: range, masks: BoxMasks, unreadable: Mapping[int, str], keep_soft: bool
) -> pa.Table:
    """The label rows of some annotations: one for each, whatever became of it.

    Args:
        rows: positions in the annotation table.
        masks: the teacher's, for the boxes it was shown.
        unreadable: image id -> why the image could not be read.
        keep_soft: keep the teacher's probabilities beside the mask.
    """
    table = annotations.annotations.slice(rows.start, len(rows))
    sizes = annotations.image_sizes()[rows.start : rows.stop]  # (R, 2)
    boxes = annotations.boxes_xyxy()[rows.start : rows.stop]  # (R, 4)
    ids = table["annotation_id"].to_pylist()
    human = pc.equal(table["source"], "human").to_pylist()
    drawn = np.array([not human[row] and id in masks.rows for row, id in enumerate(ids)], bool)  # (R,)
    grids = masks.grids[[masks.rows[ids[row]] for row in np.flatnonzero(drawn)]]  # (D, S, S)
    teacher = describe_masks(
        grids, boxes[drawn], sizes[drawn], table["bbox"].filter(drawn).to_pylist(), keep_soft
    )
    by_row = dict(zip(np.flatnonzero(drawn).tolist(), teacher, strict=True))
    records = []
    for row, record in enumerate(
        table.select(["annotation_id", "image_id", "category_id", "bbox"]).to_pylist()
    ):
        height, width = sizes[row].tolist()
        status, reason = table["status"][row].as_py(), table["reason"][row].as_py()
        record |= {"height": height, "width": width, "source": "none", "status": status, "reason": reason}
        if human[row]:
            shape = table["polygons"][row].as_py(), table["rle_counts"][row].as_py()
            record |= {"source": "human", **_human(*shape, height, width)}
        elif row in by_row:
            record |= {"source": "teacher", **by_row[row]}
        elif record["image_id"] in unreadable:
            record |= {"status": "unreadable image", "reason": unreadable[record["image_id"]]}
        record["status"] = "labeled" if record["status"] == "ok" else record["status"]
        records.append(record)
    names = sorted({name for record in records for name in record})
    return label_table(
        {name: [record.get(name) for record in records] for name in names or ["annotation_id"]}
    )


def rethresholded(labels: pa.Table, threshold: float) -> pa.Table:
    """The same rows with the teacher's masks cut at another threshold, from their soft grids.

    Raises:
        ValueError: a teacher's row has no soft grid.
    """
    teacher = np.flatnonzero(pc.equal(labels["source"], "teacher").to_numpy())
    some = labels.take(teacher)
    if some["soft"].null_count:
        raise ValueError("labels: got teacher rows without soft grids, expected soft = true when labeling")
    records = labels.to_pylist()
    for row in teacher:
        record = records[row]
        size, side = (record["height"], record["width"]), record["soft_size"]
        grid = np.frombuffer(record["soft"], np.uint8).reshape(1, side, side)
        box = np.clip(xywh_to_xyxy([record["bbox"]]), 0, [size[1], size[0]] * 2)
        record |= describe_masks(grid, box, np.array([size]), [record["bbox"]], True, threshold)[0]
    return pa.Table.from_pylist(records, labels.schema)


def given_box_masks(annotations: Annotations, segmented: Iterable[SegmentedBoxes]) -> pa.Table:
    """annotation_id and rle_counts of every box a model segmented, one batch in memory at a time."""
    position = {id: row for row, id in enumerate(annotations.annotations["annotation_id"].to_pylist())}
    boxes, sizes = annotations.boxes_xyxy(), annotations.image_sizes()
    ids: list[int] = []
    counts: list[bytes] = []
    for batch in segmented:
        rows = [position[int(id)] for id in batch.annotation_ids]
        ids += batch.annotation_ids.tolist()
        counts += encode_grids(batch.grids, boxes[rows], sizes[rows, 0], sizes[rows, 1])
    return pa.table({"annotation_id": pa.array(ids, pa.int64()), "rle_counts": pa.array(counts, pa.binary())})


def coco_results(annotations: Annotations, detected: Iterable[DetectedObjects]) -> list[dict[str, Any]]:
    """Detections as COCO results: image_id, category_id, bbox, score and segmentation at the image's size."""
    images = annotations.images.select(["image_id", "height", "width"]).to_pylist()
    size_of = {image["image_id"]: (image["height"], image["width"]) for image in images}
    results = []
    for batch in detected:
        sizes = np.array([size_of[int(id)] for id in batch.image_ids]).reshape(-1, 2)  # (D, 2)
        boxes = batch.boxes_fraction * sizes[:, [1, 0, 1, 0]]
        codes = encode_grids(batch.grids, boxes, sizes[:, 0], sizes[:, 1])
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


def describe_masks(
    grids: np.ndarray,
    boxes: np.ndarray,
    sizes: np.ndarray,
    boxes_xywh: Sequence[Sequence[float]],
    keep_soft: bool,
    threshold: float = STORED_THRESHOLD,
) -> list[dict[str, Any]]:
    """What the label file says of each of D of a model's masks.

    Args:
        grids: (D, S, S) uint8 probabilities over `boxes`.
        boxes: (D, 4) xyxy, clipped to the image.
        sizes: (D, 2) height and width of each image.
        boxes_xywh: (D, 4) as they were given, which the mask should fill.
    """
    codes = encode_grids(grids, boxes, sizes[:, 0], sizes[:, 1], threshold)
    described = []
    for grid, code, size, box in zip(grids, codes, sizes.tolist(), xywh_to_xyxy(boxes_xywh), strict=True):
        rle = {"size": size, "counts": code}
        described.append(
            {
                "rle_counts": code,
                "soft": grid.tobytes() if keep_soft else None,
                "soft_size": grid.shape[0] if keep_soft else None,
                "mask_area": int(coco_mask.area(rle)),
                "mask_score": _mean_inside(grid, threshold),
                "mask_bbox_iou": _iou(xywh_to_xyxy([coco_mask.toBbox(rle)])[0], box),
            }
        )
    return described


def _human(polygons: list | None, counts: bytes | None, height: int, width: int) -> dict[str, Any]:
    rle = mask_rle(polygons, counts, height, width)
    return {"rle_counts": rle["counts"], "mask_area": int(coco_mask.area(rle))}


def _mean_inside(grid: np.ndarray, threshold: float) -> float:
    """Mean probability over the cells above the threshold; 0 where there is none."""
    inside = grid[grid > 255 * threshold]
    return float(inside.mean() / 255) if inside.size else 0.0


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    both = np.r_[np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]
    intersection, area_a, area_b = box_area([both, a, b])
    return float(intersection / (area_a + area_b - intersection)) if area_a + area_b > intersection else 0.0
