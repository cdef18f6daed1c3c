"""Label rows and the annotations they belong to: the one place where the two are matched."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from deepmac_distill.dataset.entries import ChosenRows
from deepmac_distill.errors import DataError


class LabelRows:
    """The rows of labels by annotation."""

    def __init__(self, labels: pa.Table) -> None:
        self._have = labels["annotation_id"].to_numpy()
        self._order = np.argsort(self._have, kind="stable")
        self._rows = ChosenRows(labels.select(["image_id", "height", "width", "bbox"]))

    def of(
        self, numbers: ArrayLike, image_ids: ArrayLike, sizes: ArrayLike, boxes_xywh: ArrayLike
    ) -> NDArray[np.int64]:
        """(N,) the row of each of some annotations, by their ids; see `rows_of`."""
        ids, have = np.asarray(numbers, dtype=np.int64), self._have
        place = np.searchsorted(have, ids, sorter=self._order)
        rows = self._order[np.minimum(place, len(have) - 1)] if len(have) else np.zeros(len(ids), np.int64)
        missing = have[rows] != ids if len(have) else np.ones(len(ids), bool)
        if missing.any():
            raise DataError(
                f"labels: annotation {ids[missing][0]}: no row; expected one for every annotation"
            )
        held = self._rows.take(rows)
        got = np.stack([held[name].to_numpy() for name in ("image_id", "height", "width")], 1)
        images = np.asarray(image_ids, dtype=np.int64)
        expected = np.c_[images, np.asarray(sizes, dtype=np.int64).reshape(-1, 2)]
        _require_equal(ids, got, expected, "[image_id, height, width]")
        boxes = pc.list_flatten(held["bbox"]).to_numpy().reshape(-1, 4)
        _require_equal(ids, boxes, np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4), "bbox")
        return np.asarray(rows)

    def require_no_others(self, count: int) -> None:
        """Refuse labels of more annotations than a source has.

        Raises:
            DataError: states both numbers.
        """
        if len(self._have) != count:
            raise DataError(f"labels: got {len(self._have)} rows, expected the source's {count}")


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
    found = LabelRows(labels)
    rows = found.of(annotation_ids, image_ids, sizes, boxes_xywh)
    found.require_no_others(len(rows))
    return rows


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
