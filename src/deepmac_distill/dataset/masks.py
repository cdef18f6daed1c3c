"""A mask of the tables as one COCO run-length code at image size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco_mask


def mask_rle(
    polygons: Sequence[Sequence[float]] | None, counts: bytes | None, height: int, width: int
) -> dict[str, Any]:
    """{"size": [height, width], "counts": bytes} of polygon parts, united, else of compressed counts."""
    if polygons is None:
        return {"size": [height, width], "counts": counts}
    merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return merged
