from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation import means
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA
from deepmac_distill.evaluation.results import (
    AveragePrecision,
    ClassRow,
    CocoStats,
    Detected,
    Interval,
    MeanIoU,
    Pair,
)
from deepmac_distill.evaluation.splits import BySplit, named_splits, split_classes
from deepmac_distill.evaluation.summary import compare_given_boxes, summarize, summarize_given_boxes

CLASSES = Classes(("cat", "dog", "fox", "owl"), (3, 5, 8, 9), (True, False, False, True))


def table(rows: list[tuple[int, int, float]]) -> pa.Table:
    """Rows of (image, category, IoU); the box scores 0.5 and the ellipse 0.6 throughout."""
    images, categories, ious = zip(*rows, strict=True) if rows else ((), (), ())
    n = len(rows)
    masks, boundaries = [ious, [0.5] * n, [0.6] * n], [[0.4] * n, [0.2] * n, [0.3] * n]
    columns = [range(n), range(n), images, categories, [100] * n, *masks, *boundaries, [0] * n]
    return pa.table([pa.array(list(c), f.type) for c, f in zip(columns, IOU_SCHEMA, strict=True)], IOU_SCHEMA)


def random_table(seed: int, instances: int = 60, images: int = 9) -> pa.Table:
    rng = np.random.default_rng(seed)
    draws = zip(rng.integers(0, images, instances), rng.choice([3, 5, 8], instances), strict=True)
    return table([(int(i) * 7, int(c), float(rng.random())) for i, c in draws])


def test_a_class_counts_once_however_many_instances_it_has() -> None:
    result = summarize_given_boxes(table([(1, 3, 0.9), (1, 5, 0.2), (2, 5, 0.4), (3, 5, 0.6)]), CLASSES)
    assert result.all.class_mean_iou.model == pytest.approx((0.9 + 0.4) / 2)
    assert result.all.instance_mean_iou.model == pytest.approx(2.1 / 4)
    assert result.seen.class_mean_iou.model == pytest.approx(0.9)
    assert result.unseen.class_mean_iou.model == pytest.approx(0.4)
    assert result.unseen.model_minus_box.value == pytest.approx(-0.1)
    assert result.unseen.model_minus_ellipse.value == pytest.approx(-0.2)
    assert (result.unseen.instances, result.unseen.classes) == (3, 1)  # fox has no instance


def test_named_splits_have_figures_of_their_own_classes_and_change_no_other() -> None:
    ious = random_table(3)
    plain = summarize(CLASSES, ious)
    found = summarize(CLASSES, ious, named={"wild": ("fox", "owl"), "pets": ("cat", "dog")})
    assert list(dict(found.given_boxes.items())) == ["all", "seen", "unseen", "wild", "pets"]
    assert replace(found.given_boxes, named={}) == plain.given_boxes and plain.given_boxes.named == {}
    only = [row for row in found.per_class if row.name in ("cat", "dog")]
    mean = np.mean([row.model for row in only])
    assert found.given_boxes["pets"].class_mean_iou.model == pytest.approx(mean)
    assert found.given_boxes["pets"].instances == sum(row.instances for row in only)
    assert found.given_boxes["wild"].classes == 1  # owl has no instance
    paired = compare_given_boxes(ious, random_table(3), CLASSES, named={"pets": ("cat", "dog")})
    assert paired["pets"].a_minus_b.value == 0.0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"odd": ["cow"]}, 'evaluation.splits.odd: seen class "cow": no such class'),
        ({"odd": ["voc"]}, "evaluation.splits.odd: seen classes"),
    ],
)
def test_a_named_split_of_no_class_or_an_unknown_one_is_refused(
    asked: dict[str, list[str]], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        named_splits(asked, ("fox", "owl"), "val.json")


def test_sizes_are_those_of_coco() -> None:
    ious = table([(1, 3, 0.1), (1, 3, 0.2), (1, 3, 0.3), (1, 3, 0.4)])
    ious = ious.set_column(
        ious.schema.get_field_index("area"), "area", pa.array([32**2 - 1, 32**2, 96**2 - 1, 96**2])
    )
    sizes = summarize_given_boxes(ious, CLASSES).all.by_size
    assert [sizes.small.instances, sizes.medium.instances, sizes.large.instances] == [1, 2, 1]
    assert sizes.medium.class_mean_iou.model == pytest.approx(0.25)


def with_boundaries(ious: pa.Table, values: list[float], areas: list[int]) -> pa.Table:
    for name, column in (("boundary_iou", values), ("area", areas)):
        ious = ious.set_column(ious.schema.get_field_index(name), name, pa.array(column))
    return ious


def test_boundaries_are_averaged_as_masks_are() -> None:
    ious = with_boundaries(table([(1, 3, 0.9), (1, 5, 0.2), (2, 5, 0.4)]), [0.5, 0.1, 0.3], [9, 9, 5000])
    found = summarize_given_boxes(ious, CLASSES, 50)
    assert found.all.boundary.class_mean_iou == MeanIoU(*map(pytest.approx, (0.35, 0.2, 0.3)))
    assert found.all.boundary.instance_mean_iou.model == pytest.approx(0.3)
    assert found.unseen.boundary.model_minus_ellipse.value == pytest.approx(-0.1)
    assert found.unseen.boundary.model.low <= 0.2 <= found.unseen.boundary.model.high
    assert found.all.by_size.small.boundary.class_mean_iou.model == pytest.approx(0.3)
    assert found.all.by_size.small.model_minus_ellipse.value == pytest.approx((0.9 + 0.2) / 2 - 0.6)
    rows = summarize(CLASSES, ious, resamples=0).per_class
    assert [row.boundary for row in rows] == [0.5, pytest.approx(0.2), None, None]


def test_boundary_and_size_of_two_models_are_paired_too() -> None:
    one = with_boundaries(table([(1, 3, 0.9), (1, 3, 0.2), (2, 5, 0.4)]), [0.5, 0.1, 0.3], [9, 5000, 9])
    two = with_boundaries(table([(1, 3, 0.6), (1, 3, 0.2), (2, 5, 0.4)]), [0.4, 0.2, 0.3], [9, 5000, 9])
    found = compare_given_boxes(one, two, CLASSES, 50)
    assert found.seen.a_minus_b.value == pytest.approx(0.15)
    assert found.seen.boundary.class_mean_iou == Pair(pytest.approx(0.3), pytest.approx(0.3))
    sizes = found.seen.by_size
    assert (sizes.small.instances, sizes.medium.instances, sizes.large.instances) == (1, 1, 0)
    assert sizes.small.mask.a_minus_b.value == pytest.approx(0.3)
    assert sizes.medium.boundary.a_minus_b.value == pytest.approx(-0.1)
    assert sizes.large.mask.a_minus_b == Interval(None)


def test_interval_is_that_of_a_naive_bootstrap_over_images() -> None:
    ious, resamples, seed = random_table(0), 100, 4
    result = summarize_given_boxes(ious, CLASSES, resamples, seed).unseen
    rows, images = ious.to_pylist(), sorted(set(ious["image_id"].to_pylist()))
    drawn = np.random.default_rng(seed).multinomial(
        len(images), [1 / len(images)] * len(images), 1 + resamples
    )
    values = []
    for times in drawn[1:]:
        again = [
            row
            for i, n in zip(images, times, strict=True)
            for row in rows
            if row["image_id"] == i
            for _ in range(n)
        ]
        means = []
        for category_id in (5, 8):
            leads = [
                row["iou"] - row["box_baseline_iou"] for row in again if row["category_id"] == category_id
            ]
            if leads:
                means.append(sum(leads) / len(leads))
        values.append(sum(means) / len(means))
    low, high = np.quantile(values, [0.025, 0.975])
    assert result.model_minus_box.low == pytest.approx(low)
    assert result.model_minus_box.high == pytest.approx(high)


def test_chunks_of_resamples_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summarize_given_boxes(random_table(1), CLASSES, 100, 0)
    monkeypatch.setattr(means, "RESAMPLES_AT_ONCE", 7)
    assert summarize_given_boxes(random_table(1), CLASSES, 100, 0) == whole


def test_an_interval_covers_what_it_should_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        effect = np.repeat(rng.normal(0.5, 0.1, 60), 3)  # instances of one image are alike
        ious = table([(i // 3, 3, float(e)) for i, e in enumerate(effect)])
        found = summarize_given_boxes(ious, CLASSES, 200, seed).all.model
        covered += found.low <= 0.5 <= found.high
    assert 88 <= covered <= 99


def test_paired_difference_is_sharper_than_either_value() -> None:
    ious = random_table(2)
    better = ious.set_column(
        ious.schema.get_field_index("iou"), "iou", pa.array(ious["iou"].to_numpy() + 0.01)
    )
    found = compare_given_boxes(better, ious, CLASSES).all.a_minus_b
    assert [found.value, found.low, found.high] == pytest.approx([0.01] * 3)


def test_pairs_are_matched_by_row_not_by_place() -> None:
    ious = random_table(3)
    found = compare_given_boxes(ious, ious.take(list(reversed(range(len(ious))))), CLASSES)
    assert found.unseen.a_minus_b == Interval(0.0, 0.0, 0.0)
    assert found.unseen.class_mean_iou == Pair(*[found.unseen.class_mean_iou.a] * 2)


def test_models_evaluated_on_other_instances_are_refused() -> None:
    with pytest.raises(DataError, match="got 60 and 59"):
        compare_given_boxes(random_table(0), random_table(0).slice(1), CLASSES)


def test_nothing_to_average_is_none_not_nan() -> None:
    result = summarize_given_boxes(table([]), CLASSES).all
    assert result.model_minus_box == Interval(None)
    assert result.class_mean_iou == MeanIoU(None, None, None)
    assert (result.instances, result.classes) == (0, 0)


STATS = CocoStats(*[0.3] * 12, instances=2, ignored=0)
SEGM = AveragePrecision(BySplit(STATS, STATS, STATS), (0.1, 0.2, None, None))


def test_a_summary_has_a_row_for_every_class() -> None:
    result = summarize(CLASSES, table([(1, 3, 0.9)]), segm=SEGM)
    assert result.detected == Detected(segm=SEGM.splits, bbox=None)
    assert [row.name for row in result.per_class] == list(CLASSES.names)
    assert result.per_class[0] == ClassRow("cat", 3, True, 1, 0.9, 0.5, 0.6, 0.1, None, boundary=0.4)
    assert result.per_class[1].model is None and result.per_class[1].segm_AP == 0.2


def test_an_unmeasured_part_is_none() -> None:
    result = summarize(CLASSES, table([]))
    assert result.detected == Detected(None, None)
    assert result.per_class[0].instances == 0 and result.per_class[0].segm_AP is None


def test_a_class_that_the_model_saw_elsewhere_is_never_unseen() -> None:
    ious = table([(1, 3, 0.9), (1, 5, 0.2), (2, 8, 0.6)])
    plain, apart = (summarize(CLASSES, ious, shown_elsewhere=s) for s in (frozenset(), frozenset({"fox"})))
    assert plain.given_boxes.shown_elsewhere is None
    assert dict(apart.given_boxes.items()).keys() == {"all", "seen", "unseen", "shown elsewhere"}
    assert apart.given_boxes.shown_elsewhere.class_mean_iou.model == pytest.approx(0.6)
    assert apart.given_boxes.unseen.class_mean_iou.model == pytest.approx(0.2)
    assert apart.given_boxes.all == plain.given_boxes.all  # the other splits keep every bit
    assert apart.given_boxes.seen == plain.given_boxes.seen
    assert [row.shown_elsewhere for row in apart.per_class] == [False, False, True, False]


def test_a_class_that_is_seen_here_stays_seen_wherever_else_it_was_shown() -> None:
    splits = split_classes(CLASSES, frozenset({"cat", "dog", "fox", "unicorn"}))
    assert splits.seen.tolist() == [0, 3] and splits.unseen.size == 0
    assert splits.shown_elsewhere is not None and splits.shown_elsewhere.tolist() == [1, 2]
