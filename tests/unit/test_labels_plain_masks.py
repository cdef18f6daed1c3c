"""A model that gives one answer for every box is noticed, and objects that are like boxes are not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from deepmac_distill.labels.plain_masks import PlainMasks


def rows(*masks: tuple[list[float], int, str]) -> pa.Table:
    boxes, areas, sources = zip(*masks, strict=True)
    return pa.table(
        {
            "bbox": pa.array(boxes, pa.list_(pa.float64(), 4)),
            "mask_area": pa.array(areas, pa.int64()),
            "source": pa.array(sources),
            "height": [48] * len(masks),
            "width": [64] * len(masks),
        }
    )


def test_full_and_empty_masks_of_a_teacher_in_boxes_that_are_not_tiny_are_counted() -> None:
    found = PlainMasks.of(
        rows(
            ([10, 10, 20, 20], 400, "teacher"),  # all of it
            ([50, 10, 20, 20], 14 * 20, "teacher"),  # all that is in the image
            ([10.5, 10.5, 20, 20], 400, "teacher"),
            ([10, 10, 20, 20], 314, "teacher"),  # a circle
            ([10, 10, 20, 20], 0, "teacher"),
            ([10, 10, 7, 20], 140, "teacher"),  # tiny
            ([10, 10, 20, 20], 400, "human"),
        )
    )
    assert found == PlainMasks(masks=5, full=3, empty=1)
    both = PlainMasks.of_facts([found.facts(), {}, found.facts()])
    assert both == PlainMasks(masks=10, full=6, empty=2)
    assert PlainMasks.of_facts([{}]) == PlainMasks() == PlainMasks.of(rows(([1, 1, 20, 20], 1, "human")))


@pytest.mark.parametrize(
    ("found", "noted"),
    [
        (PlainMasks(20, 18, 0), True),
        (PlainMasks(20, 0, 18), True),
        (PlainMasks(20, 17, 0), False),
        (PlainMasks(19, 19, 0), False),
        (PlainMasks(), False),
    ],
)
def test_they_are_noted_where_nearly_all_are_plain(found: PlainMasks, noted: bool) -> None:
    assert bool(found.words()) == noted
