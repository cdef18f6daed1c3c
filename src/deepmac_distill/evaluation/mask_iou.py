"""How well a mask fits when the box is given: an IoU an instance, beside those of box and ellipse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hotcoco
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepmac_distill.dataset.coco import Annotations
from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.errors import DataError
from deepmac_distill.geometry.rle import encode_boxes, encode_ellipses

IOU_SCHEMA = pa.schema(
    [
        ("annotation_id", pa.int64()),
        ("image_id", pa.int64()),
        ("category_id", pa.int32()),
        ("area", pa.int64()),  # pixels of the truth mask
        ("iou", pa.float64()),
        ("box_iou", pa.float64()),
        ("ellipse_iou", pa.float64()),
        ("outside_box", pa.int64()),  # pixels of the truth that no mask inside the given box can reach
    ]
)
ROWS_AT_ONCE = 1024  # bounds the masks held as Python objects


def given_box_ious(truth: Annotations, predicted: pa.Table) -> pa.Table:
    """IoU in [0, 1] at original resolution of each predicted mask with its truth, in the order of `truth`.

    Judged is every non-crowd instance with a human's mask of at least one pixel (an empty truth would make
    the IoU of an empty prediction 0/0; a teacher's mask is no truth). A missing or null prediction counts 0.
    `box_iou` and `ellipse_iou`
    are what the annotated box, and the ellipse inscribed in it, score as masks: the floor that a model has
    to leave. Deep-MAC (arXiv:2104.00613) gives the measure's name and no evaluator; the reading
    is ours, as is the averaging (see `summary`).

    Args:
        truth: read with its hidden masks.
        predicted: `annotation_id` int64 (unique) and `rle_counts` binary (compressed COCO counts, nullable).

    Returns:
        A table of `IOU_SCHEMA`.

    Raises:
        DataError: `predicted` names an annotation twice, or one that `truth` does not have.
    """
    annotations = truth.annotations
    _check_ids(truth, predicted["annotation_id"])
    judged = np.flatnonzero(truth.has_human_mask() & ~annotations["iscrowd"].to_numpy())
    positions = pc.index_in(annotations["annotation_id"].take(judged), predicted["annotation_id"])
    masks = predicted["rle_counts"].take(positions)  # null where there is no prediction
    boxes, sizes = truth.boxes_xyxy()[judged], truth.image_sizes()[judged]
    tables = [
        _judge(annotations.take(judged[part]), masks[part.start : part.stop], boxes[part], sizes[part])
        for part in (slice(i, i + ROWS_AT_ONCE) for i in range(0, len(judged), ROWS_AT_ONCE))
    ]
    return pa.concat_tables([IOU_SCHEMA.empty_table(), *tables]).combine_chunks()


def _judge(rows: pa.Table, masks: pa.ChunkedArray, boxes: np.ndarray, sizes: np.ndarray) -> pa.Table:
    heights, widths = sizes.T
    shapes = zip(rows["polygons"].to_pylist(), rows["rle_counts"].to_pylist(), sizes.tolist(), strict=True)
    truths = [mask_rle(polygons, counts, *size) for polygons, counts, size in shapes]
    boxes_rle = encode_boxes(boxes, heights, widths)
    candidates = zip(masks.to_pylist(), boxes_rle, encode_ellipses(boxes, heights, widths), strict=True)
    ious = np.array([_ious(*pair) for pair in zip(candidates, truths, strict=True)]).reshape(-1, 3)
    areas = np.array([hotcoco.mask.area(rle) for rle in truths], dtype=np.int64)
    outside = [_pixels_outside(*pair) for pair in zip(truths, boxes_rle, strict=True)]
    columns = [rows[name] for name in ("annotation_id", "image_id", "category_id")]
    return pa.table([*columns, areas, *ious.T, outside], schema=IOU_SCHEMA).filter(pa.array(areas > 0))


def _ious(candidates: Sequence[bytes | None], truth: dict[str, Any]) -> np.ndarray:
    ious = np.zeros(len(candidates))
    given = [i for i, counts in enumerate(candidates) if counts is not None]
    rles = [{"size": truth["size"], "counts": candidates[i]} for i in given]
    ious[given] = hotcoco.mask.iou(rles, [truth], [False])[:, 0]
    return ious


def _pixels_outside(truth: dict[str, Any], box: bytes) -> int:
    box_rle = {"size": truth["size"], "counts": box}
    inside = hotcoco.mask.merge([truth, box_rle], intersect=True)
    return int(hotcoco.mask.area(truth) - hotcoco.mask.area(inside))


def _check_ids(truth: Annotations, ids: pa.ChunkedArray) -> None:
    unknown = ids.filter(pc.invert(pc.is_in(ids, truth.annotations["annotation_id"])))
    if len(unknown):
        raise DataError(f"{truth.path}: annotation {unknown[0]} has a predicted mask, got no such annotation")
    if len(pc.unique(ids)) != len(ids):
        counts = pc.value_counts(ids).to_pylist()
        twice = next(entry["values"] for entry in counts if entry["counts"] > 1)
        raise DataError(f"predicted masks: annotation {twice}: got more than one mask, expected one")
