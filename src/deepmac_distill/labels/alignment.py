"""Label rows and the annotations they belong to: the one place where the two are matched."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from deepmac_distill.errors import DataError


def rows_of(
    annotation_ids: ArrayLike, image_ids: ArrayLike, sizes: ArrayLike, boxes_xywh: ArrayLike, labels: pa.Table
) -> NDArray[np.int64]:
    """(N,) the label row of each of N annotations, which have no others.

    Args:
        annotation_ids, image_ids: (N,), in any order.
        sizes: (N, 2) height and width of each annotation's image.
        boxes_xywh: (N, 4) as in the source.

    Raises:
        DataError: the labels are of other annotations, images or boxes; names the first.
    """
    ids = np.asarray(annotation_ids, dtype=np.int64)
    have = labels["annotation_id"].to_numpy()
    order = np.argsort(have, kind="stable")
    place = np.searchsorted(have, ids, sorter=order)
    rows = order[np.minimum(place, len(have) - 1)] if len(have) else np.zeros(len(ids), np.int64)
    missing = have[rows] != ids if len(have) else np.ones(len(ids), bool)
    if missing.any():
        raise DataError(f"labels: annotation {ids[missing][0]}: no row; expected one for every annotation")
    columns = [np.asarray(labels[name])[rows] for name in ("image_id", "height", "width")]
    got = np.stack(columns, 1)
    expected = np.c_[np.asarray(image_ids, dtype=np.int64), np.asarray(sizes, dtype=np.int64).reshape(-1, 2)]
    _require_equal(ids, got, expected, "[image_id, height, width]")
    if len(have) != len(ids):
        raise DataError(f"labels: got {len(have)} rows, expected the source's {len(ids)}")
    boxes = pc.list_flatten(labels["bbox"]).to_numpy().reshape(-1, 4)[rows]
    _require_equal(ids, boxes, np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4), "bbox")
    return np.asarray(rows)


def _require_equal(
    ids: NDArray[np.int64], got: NDArray[np.generic], expected: NDArray[np.generic], name: str
) -> None:
    differing = np.flatnonzero((got != expected).any(1))
    if len(differing):
        at = differing[0]
        raise DataError(
            f"labels: annotation {ids[at]}: {name}: got {got[at].tolist()}, "
            f"expected the source's {expected[at].tolist()}"
        )
