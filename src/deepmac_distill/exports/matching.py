"""Which object of a data set a corrected one is: by its id where ids are kept, else by its box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac_distill.exports.masks import MaskObject, Picture

MIN_BOX_IOU = 0.5  # of boxes that are those of one object
MOST_IDS = 0.5  # share of ids that must lead to such a box before ids of a file are believed
_SAME_CLASS = 1.0  # of several boxes, one of the same class comes first


def believed_ids(pairs: Sequence[tuple[Picture, Picture]]) -> bool:
    """Whether a file has kept the ids of the data set: most of them lead to a box much like their own.

    Args:
        pairs: each image of the data set, and as it is in the file.
    """
    fits = 0
    for before, after in pairs:
        ious = box_ious(before.objects, after.objects)
        row_of = {thing.id: row for row, thing in enumerate(before.objects)}
        for column, thing in enumerate(after.objects):
            fits += thing.id in row_of and ious[row_of[thing.id], column] >= MIN_BOX_IOU
    return fits > MOST_IDS * sum(len(after.objects) for _, after in pairs)


def matched(
    before: Picture, after: Picture, claims: Mapping[int, int], class_of: Mapping[int, int]
) -> dict[int, int]:
    """Ids of objects in `after` -> ids of the objects in `before` that they are, one to one, best first.

    Args:
        claims: id in `after` -> the id that it had. Taken where such a box is on the image and overlaps.
        class_of: category id in `after` -> in `before`.
    """
    ious = box_ious(before.objects, after.objects)
    pairs = []
    for row, old in enumerate(before.objects):
        for column, new in enumerate(after.objects):
            iou, claimed = float(ious[row, column]), claims.get(new.id) == old.id
            if iou >= MIN_BOX_IOU or (claimed and iou > 0):
                same = class_of.get(new.category_id) == old.category_id
                pairs.append((3 * claimed + _SAME_CLASS * same + iou, new.id, old.id))
    found: dict[int, int] = {}
    taken: set[int] = set()
    for _, new_id, old_id in sorted(pairs, reverse=True):
        if new_id not in found and old_id not in taken:
            found[new_id] = old_id
            taken.add(old_id)
    return found


def box_ious(before: Sequence[MaskObject], after: Sequence[MaskObject]) -> NDArray[np.float64]:
    """(B, A) IoU of the boxes; of an object in `before` its given box or its mask's, whichever is nearer."""
    if not (before and after):
        return np.zeros((len(before), len(after)))
    new = [tight_box(thing) for thing in after]
    flags = [0] * len(new)
    of_boxes, of_masks = (
        coco_mask.iou(np.array(boxes, dtype=np.float64), np.array(new, dtype=np.float64), flags)
        for boxes in ([thing.bbox for thing in before], [tight_box(thing) for thing in before])
    )
    return np.asarray(np.maximum(of_boxes, of_masks))


def tight_box(thing: MaskObject) -> list[float]:
    """The box (xywh) that a mask fills; without a mask the given box."""
    if thing.rle is None:
        return list(thing.bbox)
    box: list[float] = coco_mask.toBbox(thing.rle).tolist()
    return box
