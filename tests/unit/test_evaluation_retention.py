from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deepmac_distill.chain import Arm
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.average_precision import CocoTruth
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA
from deepmac_distill.evaluation.power import t_quantile
from deepmac_distill.evaluation.results import Interval, Ratio, from_json, to_json
from deepmac_distill.evaluation.retention import (
    ARMS,
    mean_retention,
    retention_in_detections,
    retention_in_given_boxes,
)
from deepmac_distill.evaluation.retention_results import (
    Retention,
    RetentionDetected,
    RetentionFigures,
    RetentionIoU,
)
from deepmac_distill.evaluation.splits import BySplit

CLASSES = Classes(("cat", "dog", "fox"), (3, 5, 8), (True, False, False))
ZERO = Interval(0.0, 0.0, 0.0)
DIFFERENCES = ("pseudo_minus_human_seen", "human_all_minus_pseudo", "human_all_minus_human_seen")
GAIN = "human_all - human_seen"


def table(rows: list[tuple[int, int, float]]) -> pa.Table:
    """Rows of (image, category, IoU)."""
    images, categories, ious = zip(*rows, strict=True) if rows else ((), (), ())
    n = len(rows)
    masks, boundaries = [ious, [0.5] * n, [0.6] * n], [[0.4] * n, [0.2] * n, [0.3] * n]
    columns = [range(n), range(n), images, categories, [100] * n, *masks, *boundaries, [0] * n]
    return pa.table([pa.array(list(c), f.type) for c, f in zip(columns, IOU_SCHEMA, strict=True)], IOU_SCHEMA)


def arms(rows: list[tuple[int, int, float, float, float]]) -> dict[str, pa.Table]:
    """Rows of (image, category, IoU of human_seen, of pseudo, of human_all)."""
    return {arm: table([(row[0], row[1], row[2 + k]) for row in rows]) for k, arm in enumerate(ARMS)}


def random_rows(
    seed: int, instances: int = 80, images: int = 12
) -> list[tuple[int, int, float, float, float]]:
    rng = np.random.default_rng(seed)
    draws = zip(rng.integers(0, images, instances), rng.choice([3, 5, 8], instances), strict=True)
    return [(int(i) * 7, int(c), *map(float, rng.random(3) * 0.3 + [0, 0.2, 0.4])) for i, c in draws]


def undefined(ratio: Ratio) -> str:
    """Why a ratio is undefined; its numbers must then be nothing."""
    assert (ratio.value, ratio.low, ratio.high) == (None, None, None)
    return ratio.undefined


def means_of(figures: RetentionFigures) -> list[float | None]:
    return [figures.human_seen, figures.pseudo, figures.human_all]


def triple(figure: Interval | Ratio) -> list[float | None]:
    return [figure.value, figure.low, figure.high]


ONE_IMAGE = [(1, 3, 0.8, 0.7, 0.8), (1, 5, 0.4, 0.6, 0.7), (1, 5, 0.2, 0.4, 0.5), (1, 8, 0.2, 0.3, 0.4)]


def test_figures_are_those_worked_out_by_hand() -> None:
    """A single image: every resampling is the data itself, so an interval is its value three times."""
    unseen = retention_in_given_boxes(arms(ONE_IMAGE), CLASSES, resamples=20).unseen
    assert (unseen.instances, unseen.classes) == (3, 2)
    classes = unseen.class_mean_iou  # dogs 0.3, 0.5, 0.6; foxes 0.2, 0.3, 0.4
    assert means_of(classes) == pytest.approx([0.25, 0.4, 0.5])
    for figure, value in {
        classes.pseudo_minus_human_seen: 0.15,
        classes.human_all_minus_pseudo: 0.1,
        classes.human_all_minus_human_seen: 0.25,
    }.items():
        assert triple(figure) == pytest.approx([value] * 3)
    assert (classes.retention, classes.pseudo_over_human_all) == (
        Ratio(pytest.approx(0.6)),  # one seed makes no interval of a ratio
        Ratio(pytest.approx(0.8)),
    )
    instances = unseen.instance_mean_iou  # sums 0.8, 1.3, 1.6 of three
    assert means_of(instances) == pytest.approx([0.8 / 3, 1.3 / 3, 1.6 / 3])
    assert instances.retention.value == pytest.approx(0.5 / 0.8)
    assert instances.pseudo_over_human_all.value == pytest.approx(1.3 / 1.6)
    assert classes.retention.undefined is None and classes.pseudo_over_human_all.undefined is None


def test_a_ratio_is_undefined_where_its_denominator_may_be_zero() -> None:
    seen = retention_in_given_boxes(arms(ONE_IMAGE), CLASSES, resamples=20).seen.class_mean_iou
    assert seen.human_all_minus_human_seen == ZERO
    why = undefined(seen.retention)
    assert why == f"{GAIN} = 0.0000 [0.0000, 0.0000]: expected an interval above zero"
    assert seen.pseudo_over_human_all.value == pytest.approx(0.7 / 0.8)
    # human_all is above human_seen on the whole, but on one of the two images alone it is below
    torn = [(1, 5, 0.5, 0.5, 0.4), (2, 5, 0.1, 0.5, 0.4)]
    found = retention_in_given_boxes(arms(torn), CLASSES, resamples=200).unseen.class_mean_iou
    gain = found.human_all_minus_human_seen
    assert gain.value == pytest.approx(0.1) and gain.low < 0
    assert undefined(found.retention).startswith(f"{GAIN} = 0.1000 [-0.1000, ")
    assert found.pseudo_over_human_all.undefined is None


def test_where_human_masks_did_harm_there_is_no_gain_to_retain() -> None:
    found = retention_in_given_boxes(arms([(1, 5, 0.6, 0.5, 0.2)]), CLASSES, resamples=20).unseen
    assert found.class_mean_iou.human_all_minus_human_seen.high < 0
    assert f"{GAIN} = -0.4000" in undefined(found.class_mean_iou.retention)


def test_nothing_found_by_human_all_is_nothing_to_divide_by() -> None:
    found = retention_in_given_boxes(arms([(1, 5, 0.0, 0.1, 0.0)]), CLASSES, resamples=20).unseen
    assert undefined(found.instance_mean_iou.pseudo_over_human_all).startswith("human_all = 0.0000 ")


def test_identical_students_differ_by_exactly_nothing() -> None:
    one = table([(i, c, a) for i, c, a, _, _ in random_rows(0)])
    for _, split in retention_in_given_boxes(dict.fromkeys(ARMS, one), CLASSES, resamples=100).items():
        for figures in (split.class_mean_iou, split.instance_mean_iou):
            assert [getattr(figures, name) for name in DIFFERENCES] == [ZERO] * 3
            assert undefined(figures.retention)
            assert figures.pseudo_over_human_all == Ratio(1.0)


def test_intervals_are_those_of_one_naive_bootstrap_of_all_three_together() -> None:
    rows, resamples, seed = random_rows(1), 60, 4
    found = retention_in_given_boxes(arms(rows), CLASSES, resamples, seed).unseen
    images = sorted({row[0] for row in rows})
    drawn = np.random.default_rng(seed).multinomial(
        len(images), [1 / len(images)] * len(images), 1 + resamples
    )
    gains = []
    for times in drawn[1:]:
        again = [row for i, n in zip(images, times, strict=True) for row in rows * n if row[0] == i]
        per_class = [[row[2:] for row in again if row[1] == category] for category in (5, 8)]
        a, b, c = np.mean([np.mean(ious, axis=0) for ious in per_class if ious], axis=0)
        gains.append([b - a, c - b, c - a])
    for name, values in zip(DIFFERENCES, np.transpose(gains), strict=True):
        difference = getattr(found.class_mean_iou, name)
        assert [difference.low, difference.high] == pytest.approx(np.quantile(values, [0.025, 0.975]))
        assert difference.low < difference.value < difference.high


def test_boundaries_and_sizes_are_those_of_their_instances() -> None:
    ious = arms(random_rows(3))
    small = retention_in_given_boxes(ious, CLASSES, 30).unseen
    assert small.by_size.small == small.class_mean_iou  # all are
    assert small.by_size.large.pseudo is None
    assert "nothing to evaluate" in undefined(small.by_size.large.retention)
    assert means_of(small.boundary) == pytest.approx([0.4] * 3)
    edges = {  # what is the boundary's in one is the mask's in the other
        arm: one.rename_columns([SWAPPED.get(name, name) for name in one.column_names]).select(
            one.column_names
        )
        for arm, one in ious.items()
    }
    assert retention_in_given_boxes(edges, CLASSES, 30).unseen.boundary == small.class_mean_iou


SWAPPED = {"iou": "boundary_iou", "boundary_iou": "iou"}


def seeded(seeds: int) -> tuple[dict[Arm, dict[int, pa.Table]], dict[int, Retention]]:
    """The same instances by students of several seeds, and the retention of each seed."""
    rng, rows = np.random.default_rng(8), random_rows(1)
    tables = {
        seed: arms([(i, c, *(np.array(ious) + rng.normal(0, 0.02, 3))) for i, c, *ious in rows])
        for seed in range(seeds)
    }
    each = {
        seed: Retention({}, (), retention_in_given_boxes(ious, CLASSES, 60), RetentionDetected(), (seed,))
        for seed, ious in tables.items()
    }
    return {arm: {seed: ious[arm] for seed, ious in tables.items()} for arm in ARMS}, each


def exact(ious: dict[Arm, dict[int, pa.Table]]) -> BySplit[RetentionIoU]:
    """From the instances of every seed."""
    return retention_in_given_boxes(
        {arm: list(by_seed.values()) for arm, by_seed in ious.items()}, CLASSES, 60
    )


def test_without_the_instances_an_interval_over_seeds_is_a_little_wider() -> None:
    ious, each = seeded(3)
    ours, kept = (
        found.unseen.class_mean_iou.pseudo_minus_human_seen
        for found in (exact(ious), mean_retention(each).given_boxes)
    )
    assert kept.value == pytest.approx(ours.value)
    assert 1.0 <= (kept.high - kept.low) / (ours.high - ours.low) < 1.2
    assert (kept.seeds_half, kept.seeds_df) == (pytest.approx(ours.seeds_half), 2)


def test_over_seeds_figures_are_means_and_retention_has_an_interval() -> None:
    ious, each = seeded(3)
    assert mean_retention(each).seeds == (0, 1, 2)
    for split, row in exact(ious).items():
        figures = row.class_mean_iou
        theirs = [one.given_boxes[split].class_mean_iou for one in each.values()]
        for name in ARMS:
            assert getattr(figures, name) == pytest.approx(np.mean([getattr(one, name) for one in theirs]))
        a, b, c = means_of(figures)
        ratio = figures.retention
        assert ratio.value == pytest.approx((b - a) / (c - a)) or ratio.undefined
        assert figures.pseudo_over_human_all == Ratio(pytest.approx(b / c))
        # A difference varies from seed to seed by s; t(2) s / sqrt(3) is in the half-width.
        for name in DIFFERENCES:
            difference = getattr(figures, name)
            spread = np.std([getattr(one, name).value for one in theirs], ddof=1)
            assert difference.seeds_half == pytest.approx(t_quantile(0.975, 2) * spread / 3**0.5)
            assert difference.high - difference.value == pytest.approx(difference.value - difference.low)
            assert difference.high - difference.value >= difference.seeds_half
        assert row.by_size.small == figures and row.boundary.pseudo == pytest.approx(0.4)
    whole = mean_retention(each).given_boxes.all.class_mean_iou.retention
    assert whole.low < whole.value < whole.high


def test_seeds_of_an_earlier_version_leave_out_what_it_did_not_measure() -> None:
    _, each = seeded(2)
    old = replace(
        each[0], given_boxes=each[0].given_boxes.map(lambda row: replace(row, boundary=None, by_size=None))
    )
    found = mean_retention({**each, 0: old}).given_boxes.all
    assert found == replace(mean_retention(each).given_boxes.all, boundary=None, by_size=None)


def test_over_one_seed_nothing_is_widened() -> None:
    ious, each = seeded(1)
    assert mean_retention(each) == each[0]
    assert exact(ious) == each[0].given_boxes
    assert exact(ious).unseen.class_mean_iou.retention.low is None


def test_students_are_matched_by_row_and_must_be_evaluated_on_the_same() -> None:
    ious = arms(random_rows(2))
    turned = ious | {"pseudo": ious["pseudo"].take(list(reversed(range(len(ious["pseudo"])))))}
    assert retention_in_given_boxes(turned, CLASSES, 10) == retention_in_given_boxes(ious, CLASSES, 10)
    with pytest.raises(DataError, match="got 80 and 79"):
        retention_in_given_boxes(ious | {"human_all": ious["human_all"].slice(1)}, CLASSES)


def test_nothing_to_evaluate_is_none_and_plain_json() -> None:
    found = retention_in_given_boxes(arms([(1, 3, 0.2, 0.3, 0.4)]), CLASSES, resamples=5)
    unseen = found.unseen
    assert (unseen.instances, unseen.class_mean_iou.human_seen) == (0, None)
    assert undefined(unseen.class_mean_iou.retention) == f"{GAIN}: nothing to evaluate"
    assert undefined(unseen.instance_mean_iou.pseudo_over_human_all) == "human_all: nothing to evaluate"
    plain = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert from_json(plain, BySplit[RetentionIoU], "here") == found


IMAGES = range(1, 9)


@pytest.fixture
def truth(tmp_path: Path) -> Annotations:
    """Eight images, each with a square of class 2, which is not seen; class 1 is seen and has none."""
    square = {"bbox": [5, 5, 20, 20], "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]], "area": 400}
    raw = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 40} for i in IMAGES],
        "annotations": [{"id": i, "image_id": i, "category_id": 2, "iscrowd": 0, **square} for i in IMAGES],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "kite"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(raw))
    return Dataset.open(tmp_path / "truth.json", seen=["cat"]).for_evaluation()


def found_in(images: range) -> list[dict[str, Any]]:
    """Perfect detections of the squares of some images, and none of the others."""
    mask = mask_rle([[5, 5, 25, 5, 25, 25, 5, 25]], None, 40, 40)
    shape = {"bbox": [5, 5, 20, 20], "segmentation": {**mask, "counts": mask["counts"].decode()}}
    rows = [{"image_id": i, "category_id": 2, "score": 0.9, **shape} for i in images]
    return json.loads(json.dumps(rows))


def test_average_precision_over_seeds_has_the_images_of_all_seeds(truth: Annotations) -> None:
    """Both seeds' images are resampled as one; a mean of two seeds varies less over images than each."""
    masks = CocoTruth.of(truth, "segm")
    students = [found_in(range(1, 4)), found_in(range(4, 7))]  # of one recall, on other images

    def pseudo_minus_human_seen(pseudo: list[list[dict[str, Any]]]) -> Interval:
        none: list[list[dict[str, Any]]] = [[] for _ in pseudo]
        by_arm = dict(zip(ARMS, (none, pseudo, [found_in(IMAGES)] * len(pseudo)), strict=True))
        return retention_in_detections(masks, by_arm, resamples=400).unseen.pseudo_minus_human_seen

    one, other, both = (pseudo_minus_human_seen(some) for some in ([students[0]], [students[1]], students))
    assert both.value == pytest.approx((one.value + other.value) / 2)
    assert (both.seeds_half, both.seeds_df) == (0.0, 1)
    assert both.high - both.low < 0.9 * min(one.high - one.low, other.high - other.low)


def test_average_precision_of_perfect_detections_is_worked_out_by_hand(truth: Annotations) -> None:
    """Recall 1/4, 1/2 and 1 without a false positive: 26, 51 and 101 of COCO's 101 recall points."""
    detections = dict(
        zip(ARMS, ([found_in(IMAGES[:2])], [found_in(IMAGES[:4])], [found_in(IMAGES)]), strict=True)
    )
    found = retention_in_detections(CocoTruth.of(truth, "segm"), detections, resamples=100, seed=0)
    unseen = found.unseen
    assert means_of(unseen) == pytest.approx([26 / 101, 51 / 101, 1.0])
    for name, value in zip(DIFFERENCES, (25 / 101, 50 / 101, 75 / 101), strict=True):
        difference = getattr(unseen, name)
        assert difference.value == pytest.approx(value) and difference.low <= value <= difference.high
    assert unseen.retention == Ratio(pytest.approx(1 / 3))
    assert unseen.pseudo_over_human_all == Ratio(pytest.approx(51 / 101))
    assert found.seen.human_all is None
    assert undefined(found.seen.retention) == f"{GAIN}: nothing to evaluate"
    assert found.all == unseen


def test_ratios_of_average_precision_are_undefined_by_the_same_rule(truth: Annotations) -> None:
    masks = CocoTruth.of(truth, "segm")
    same = retention_in_detections(masks, {arm: [found_in(IMAGES[:4])] for arm in ARMS}, resamples=50).unseen
    assert [getattr(same, name) for name in DIFFERENCES] == [ZERO] * 3
    assert undefined(same.retention).startswith(f"{GAIN} = 0.0000 ")
    assert same.pseudo_over_human_all.value == 1.0
    blind = retention_in_detections(masks, {arm: [[]] for arm in ARMS}, resamples=50).unseen
    assert undefined(blind.retention).startswith(f"{GAIN} = ")
    assert undefined(blind.pseudo_over_human_all).startswith("human_all = ")


def test_a_split_without_classes_is_none(truth: Annotations) -> None:
    everything = CocoTruth.of(Dataset.open(truth.path, seen="all").for_evaluation(), "segm")
    found = retention_in_detections(everything, {arm: [found_in(IMAGES)] for arm in ARMS}, resamples=2)
    assert found.unseen is None and found.seen.human_all == 1.0
