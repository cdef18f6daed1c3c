from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA
from deepmac_distill.evaluation.summary import compare_given_boxes, summarize_given_boxes

CLASSES = Classes(("a", "b", "c"), (1, 2, 3), (True, False, False))
fractions = st.floats(0, 1)
row = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 20000), *[fractions] * 6)
rows = st.lists(row, min_size=1, max_size=25)
few = settings(max_examples=40, deadline=None)


def table(drawn: list[tuple]) -> pa.Table:
    columns = [range(len(drawn)), range(len(drawn)), *zip(*drawn, strict=True), [0] * len(drawn)]
    return pa.table([pa.array(list(c), f.type) for c, f in zip(columns, IOU_SCHEMA, strict=True)], IOU_SCHEMA)


@few
@given(rows)
def test_means_and_intervals_lie_between_the_worst_and_the_best(drawn: list[tuple]) -> None:
    ious = table(drawn)
    found = summarize_given_boxes(ious, CLASSES, 20).all
    worst, best = ious["iou"].to_numpy().min() - 1e-12, ious["iou"].to_numpy().max() + 1e-12
    assert worst <= found.model.low <= found.model.high <= best
    assert worst <= found.class_mean_iou.model <= best
    assert worst <= found.instance_mean_iou.model <= best


@few
@given(rows, st.randoms())
def test_order_of_rows_does_not_matter(drawn: list[tuple], random) -> None:
    shuffled = list(drawn)
    random.shuffle(shuffled)
    a, b = (summarize_given_boxes(table(r), CLASSES, 10).all.model for r in (drawn, shuffled))
    assert [a.value, a.low, a.high] == pytest.approx([b.value, b.low, b.high], abs=1e-12)


@few
@given(rows)
def test_instances_add_up_over_splits_and_sizes(drawn: list[tuple]) -> None:
    found = summarize_given_boxes(table(drawn), CLASSES, 0)
    assert found.all.instances == found.seen.instances + found.unseen.instances == len(drawn)
    for _, split in found.items():
        sizes = (split.by_size.small, split.by_size.medium, split.by_size.large)
        assert split.instances == sum(size.instances for size in sizes)


@few
@given(rows)
def test_swapping_two_runs_turns_the_difference_round(drawn: list[tuple]) -> None:
    ious = table(drawn)
    other = ious.set_column(ious.schema.get_field_index("iou"), "iou", ious["box_baseline_iou"])
    one, two = (
        compare_given_boxes(*pair, CLASSES, 50).all.a_minus_b for pair in ((ious, other), (other, ious))
    )
    assert np.array([one.value, one.low, one.high]) == pytest.approx(
        -np.array([two.value, two.high, two.low]), abs=1e-12
    )
