"""How well a mask fits when the box is given: an IoU an instance, beside those of box and ellipse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hotcoco
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import DataError
from deepmac_distill.geometry.boundary import mask_boundary, patch_iou
from deepmac_distill.geometry.rle import encode_boxes, encode_ellipses

IOU_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # of the truth's annotations
        ("annotation_id", pa.int64()),
        ("image_id", pa.int64()),
        ("category_id", pa.int32()),
        ("area", pa.int64()),  # pixels of the truth mask
        ("iou", pa.float64()),
        ("box_baseline_iou", pa.float64()),
        ("ellipse_iou", pa.float64()),
        ("boundary_iou", pa.float64()),  # this and the next two as the three above, of the boundaries alone
        ("box_boundary_iou", pa.float64()),
        ("ellipse_boundary_iou", pa.float64()),
        ("outside_box", pa.int64()),  # pixels of the truth that no mask inside the given box can reach
    ]
)
ROWS_AT_ONCE = 1024  # bounds the masks held as Python objects


def given_box_ious(truth: Truth, predicted: pa.Table, rows: range | None = None) -> pa.Table:
    """IoU in [0, 1] at original resolution of each predicted mask with its truth, in the order of `truth`.

    Every non-crowd instance with a human's mask of at least one pixel is evaluated (an empty truth would make
    the IoU of an empty prediction 0/0; a teacher's mask is no truth). A missing or null prediction counts 0.
    `box_baseline_iou` and `ellipse_iou` are the scores of the annotated box, and of the ellipse inscribed in
    it, as masks: the floor that a model has to leave. Deep-MAC (arXiv:2104.00613) gives the measure's name
    and no evaluator; the reading is ours, as is the averaging (see `summary`). Boundary IoU is that of
    arXiv:2103.16562, of each pair of masks by itself; for a mask so small that all of it is boundary it is
    the mask IoU.

    Args:
        predicted: `row` int64 (of `truth`, unique) and `rle_counts` binary (compressed COCO, nullable).
        rows: of `truth` to evaluate; None: all of them.

    Returns:
        A table of `IOU_SCHEMA`.

    Raises:
        DataError: `predicted` names a row twice, or one that `truth` does not have.
    """
    annotations, part = truth.annotations, slice(None) if rows is None else slice(rows.start, rows.stop)
    human = truth.has_human_mask() & ~annotations["iscrowd"].to_numpy()
    evaluated = np.flatnonzero(human[part]) + (part.start or 0)
    masks = masks_by_row(truth, predicted).take(evaluated)  # null where there is no prediction
    boxes, sizes = truth.boxes_xyxy()[evaluated], truth.image_sizes()[evaluated]
    tables = [
        _evaluated(
            evaluated[part],
            annotations.take(evaluated[part]),
            masks[part.start : part.stop],
            boxes[part],
            sizes[part],
        )
        for part in (slice(i, i + ROWS_AT_ONCE) for i in range(0, len(evaluated), ROWS_AT_ONCE))
    ]
    return pa.concat_tables([IOU_SCHEMA.empty_table(), *tables]).combine_chunks()


def with_names(truth: Truth, rows: pa.Table) -> pa.Table:
    """Rows of `truth`, by their column `row`, with `file_name` and `category_name`: no use needs a join."""
    at = rows["row"].to_numpy()
    numbers = truth.annotations["image_id"].to_numpy()[at]
    images = truth.images["image_id"].to_numpy()  # ascending
    files = truth.images["file_name"].take(pa.array(np.searchsorted(images, numbers)))
    classes = pa.array(truth.classes.names, pa.string()).take(pa.array(truth.class_index()[at]))
    return rows.append_column("file_name", files).append_column("category_name", classes)


def masks_by_row(truth: Truth, predicted: pa.Table) -> pa.ChunkedArray:
    """Compressed counts (N,) of each row of `truth`; null where nothing is predicted.

    Raises:
        DataError: `predicted` names a row twice, or one that `truth` does not have.
    """
    rows, total = predicted["row"].to_numpy(), len(truth.annotations)
    if len(strays := rows[(rows < 0) | (rows >= total)]):
        raise DataError(f"{truth.path}: predicted mask of row {strays[0]}, expected a row below {total}")
    unique, counts = np.unique(rows, return_counts=True)
    if len(unique) != len(rows):
        raise DataError(
            f"{truth.path}: predicted masks of row {unique[counts > 1][0]}: got more than one, expected one"
        )
    positions = np.full(total, -1, dtype=np.int64)
    positions[rows] = np.arange(len(rows))
    return predicted["rle_counts"].take(pa.array(positions, mask=positions < 0))


def _evaluated(
    rows: NDArray[np.int64],
    annotations: pa.Table,
    masks: pa.ChunkedArray,
    boxes: NDArray[np.float64],
    sizes: NDArray[np.int64],
) -> pa.Table:
    heights, widths = sizes.T
    polygons, counts = (annotations[name].to_pylist() for name in ("polygons", "rle_counts"))
    shapes = zip(polygons, counts, sizes.tolist(), strict=True)
    truths = [mask_rle(polygons, counts, *size) for polygons, counts, size in shapes]
    boxes_rle = encode_boxes(boxes, heights, widths)
    ellipses_rle = encode_ellipses(boxes, heights, widths)
    candidates = list(zip(masks.to_pylist(), boxes_rle, ellipses_rle, strict=True))
    ious, boundary_ious = (
        np.array([measure(*pair) for pair in zip(candidates, truths, strict=True)]).reshape(-1, 3)
        for measure in (_ious, _boundary_ious)
    )
    areas = np.array([hotcoco.mask.area(rle) for rle in truths], dtype=np.int64)
    outside = [_pixels_outside(*pair) for pair in zip(truths, boxes_rle, strict=True)]
    columns = [annotations[name] for name in ("annotation_id", "image_id", "category_id")]
    table = pa.table([rows, *columns, areas, *ious.T, *boundary_ious.T, outside], schema=IOU_SCHEMA)
    return table.filter(pa.array(areas > 0))


def _ious(candidates: Sequence[bytes | None], truth: dict[str, Any]) -> NDArray[np.float64]:
    ious = np.zeros(len(candidates))
    given = [i for i, counts in enumerate(candidates) if counts is not None]
    rles = [{"size": truth["size"], "counts": candidates[i]} for i in given]
    ious[given] = hotcoco.mask.iou(rles, [truth], [False])[:, 0]
    return ious


def _boundary_ious(candidates: Sequence[bytes | None], truth: dict[str, Any]) -> NDArray[np.float64]:
    height, width = truth["size"]
    of_truth = mask_boundary(truth["counts"], height, width)
    return np.array(
        [
            0.0 if counts is None else patch_iou(mask_boundary(counts, height, width), of_truth)
            for counts in candidates
        ]
    )


def _pixels_outside(truth: dict[str, Any], box: bytes) -> int:
    box_rle = {"size": truth["size"], "counts": box}
    inside = hotcoco.mask.merge([truth, box_rle], intersect=True)
    return int(hotcoco.mask.area(truth) - hotcoco.mask.area(inside))
