from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.coco import Annotations, read_coco
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA
from deepmac_distill.evaluation.retention import (
    DIFFERENCES,
    RATIOS,
    retention_in_detections,
    retention_in_given_boxes,
)

CLASSES = Classes(("cat", "dog", "fox"), (3, 5, 8), (True, False, False))
ZERO = {"value": 0.0, "low": 0.0, "high": 0.0}


def table(rows: list[tuple[int, int, float]]) -> pa.Table:
    """Rows of (image, category, IoU)."""
    images, categories, ious = zip(*rows, strict=True) if rows else ((), (), ())
    n = len(rows)
    columns = [range(n), images, categories, [100] * n, ious, [0.5] * n, [0.6] * n, [0] * n]
    return pa.table([pa.array(list(c), f.type) for c, f in zip(columns, IOU_SCHEMA, strict=True)], IOU_SCHEMA)


def arms(rows: list[tuple[int, int, float, float, float]]) -> dict[str, pa.Table]:
    """Rows of (image, category, IoU of a, of b, of c)."""
    return {arm: table([(row[0], row[1], row[2 + k]) for row in rows]) for k, arm in enumerate("abc")}


def random_rows(
    seed: int, instances: int = 80, images: int = 12
) -> list[tuple[int, int, float, float, float]]:
    rng = np.random.default_rng(seed)
    draws = zip(rng.integers(0, images, instances), rng.choice([3, 5, 8], instances), strict=True)
    return [(int(i) * 7, int(c), *map(float, rng.random(3) * 0.3 + [0, 0.2, 0.4])) for i, c in draws]


def undefined(figures: dict[str, Any], name: str) -> str:
    """Why a ratio is undefined; its numbers must then be nothing."""
    ratio = dict(figures[name])
    why = ratio.pop("undefined")
    assert ratio == {"value": None, "low": None, "high": None}
    return why


ONE_IMAGE = [(1, 3, 0.8, 0.7, 0.8), (1, 5, 0.4, 0.6, 0.7), (1, 5, 0.2, 0.4, 0.5), (1, 8, 0.2, 0.3, 0.4)]


def test_figures_are_those_worked_out_by_hand() -> None:
    """A single image: every resampling is the data itself, so an interval is its value three times."""
    unseen = retention_in_given_boxes(arms(ONE_IMAGE), CLASSES, resamples=20)["unseen"]
    assert (unseen["instances"], unseen["classes"]) == (3, 2)
    classes = unseen["class_mean_iou"]  # dogs 0.3, 0.5, 0.6; foxes 0.2, 0.3, 0.4
    assert [classes[arm] for arm in "abc"] == pytest.approx([0.25, 0.4, 0.5])
    hand = {"b_minus_a": 0.15, "c_minus_b": 0.1, "c_minus_a": 0.25, "retention": 0.6, "b_over_c": 0.8}
    for name, value in hand.items():
        assert [classes[name][key] for key in ("value", "low", "high")] == pytest.approx([value] * 3)
    instances = unseen["instance_mean_iou"]  # sums 0.8, 1.3, 1.6 of three
    assert [instances[arm] for arm in "abc"] == pytest.approx([0.8 / 3, 1.3 / 3, 1.6 / 3])
    assert instances["retention"]["value"] == pytest.approx(0.5 / 0.8)
    assert instances["b_over_c"]["value"] == pytest.approx(1.3 / 1.6)
    assert classes["retention"]["undefined"] is None and classes["b_over_c"]["undefined"] is None


def test_a_ratio_is_undefined_where_its_denominator_may_be_zero() -> None:
    seen = retention_in_given_boxes(arms(ONE_IMAGE), CLASSES, resamples=20)["seen"]["class_mean_iou"]
    assert seen["c_minus_a"] == ZERO  # c = a
    why = undefined(seen, "retention")
    assert why == "c - a = 0.0000 [0.0000, 0.0000]: expected an interval above zero"
    assert seen["b_over_c"]["value"] == pytest.approx(0.7 / 0.8)
    # c is above a on the whole, but on one of the two images alone it is below
    torn = [(1, 5, 0.5, 0.5, 0.4), (2, 5, 0.1, 0.5, 0.4)]
    found = retention_in_given_boxes(arms(torn), CLASSES, resamples=200)["unseen"]["class_mean_iou"]
    assert found["c_minus_a"]["value"] == pytest.approx(0.1) and found["c_minus_a"]["low"] < 0
    assert undefined(found, "retention").startswith("c - a = 0.1000 [-0.1000, ")
    assert found["b_over_c"]["undefined"] is None


def test_where_human_masks_did_harm_there_is_no_gain_to_retain() -> None:
    found = retention_in_given_boxes(arms([(1, 5, 0.6, 0.5, 0.2)]), CLASSES, resamples=20)["unseen"]
    assert found["class_mean_iou"]["c_minus_a"]["high"] < 0
    assert "c - a = -0.4000" in undefined(found["class_mean_iou"], "retention")


def test_nothing_found_by_c_is_nothing_to_divide_by() -> None:
    found = retention_in_given_boxes(arms([(1, 5, 0.0, 0.1, 0.0)]), CLASSES, resamples=20)["unseen"]
    assert undefined(found["instance_mean_iou"], "b_over_c").startswith("c = 0.0000 ")


def test_identical_students_differ_by_exactly_nothing() -> None:
    one = table([(i, c, a) for i, c, a, _, _ in random_rows(0)])
    for split in retention_in_given_boxes(dict.fromkeys("abc", one), CLASSES, resamples=100).values():
        for mean in ("class_mean_iou", "instance_mean_iou"):
            assert [split[mean][name] for name in DIFFERENCES] == [ZERO] * 3
            assert undefined(split[mean], "retention")
            assert split[mean]["b_over_c"] == {"value": 1.0, "low": 1.0, "high": 1.0, "undefined": None}


def test_intervals_are_those_of_one_naive_bootstrap_of_all_three_together() -> None:
    rows, resamples, seed = random_rows(1), 60, 4
    found = retention_in_given_boxes(arms(rows), CLASSES, resamples, seed)["unseen"]
    images = sorted({row[0] for row in rows})
    drawn = np.random.default_rng(seed).multinomial(
        len(images), [1 / len(images)] * len(images), 1 + resamples
    )
    ratios = []
    for times in drawn[1:]:
        again = [row for i, n in zip(images, times, strict=True) for row in rows * n if row[0] == i]
        per_class = [[row[2:] for row in again if row[1] == category] for category in (5, 8)]
        a, b, c = np.mean([np.mean(ious, axis=0) for ious in per_class if ious], axis=0)
        ratios.append((b - a) / (c - a))
    retention = found["class_mean_iou"]["retention"]
    assert [retention["low"], retention["high"]] == pytest.approx(np.quantile(ratios, [0.025, 0.975]))
    assert retention["low"] < retention["value"] < retention["high"]


def test_students_are_matched_by_annotation_and_must_be_judged_on_the_same() -> None:
    ious = arms(random_rows(2))
    turned = ious | {"b": ious["b"].take(list(reversed(range(len(ious["b"])))))}
    assert retention_in_given_boxes(turned, CLASSES, 10) == retention_in_given_boxes(ious, CLASSES, 10)
    with pytest.raises(DataError, match="got 80 and 79"):
        retention_in_given_boxes(ious | {"c": ious["c"].slice(1)}, CLASSES)


def test_nothing_to_judge_is_none_and_plain_json() -> None:
    found = retention_in_given_boxes(arms([(1, 3, 0.2, 0.3, 0.4)]), CLASSES, resamples=5)
    unseen = found["unseen"]
    assert (unseen["instances"], unseen["class_mean_iou"]["a"]) == (0, None)
    assert undefined(unseen["class_mean_iou"], "retention") == "c - a: nothing to judge"
    assert undefined(unseen["instance_mean_iou"], "b_over_c") == "c: nothing to judge"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


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
    return read_coco(tmp_path / "truth.json", ["cat"], hide_unseen=False)


def found_in(images: range) -> list[dict[str, Any]]:
    """Perfect detections of the squares of some images, and none of the others."""
    shape = {"bbox": [5, 5, 20, 20], "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}
    rows = [{"image_id": i, "category_id": 2, "score": 0.9, **shape} for i in images]
    return json.loads(json.dumps(rows))


def test_average_precision_of_perfect_detections_is_worked_out_by_hand(truth: Annotations) -> None:
    """Recall 1/4, 1/2 and 1 without a false positive: 26, 51 and 101 of COCO's 101 recall points."""
    detections = {"a": found_in(IMAGES[:2]), "b": found_in(IMAGES[:4]), "c": found_in(IMAGES)}
    found = retention_in_detections(truth, detections, resamples=100, seed=0)
    unseen = found["unseen"]
    assert [unseen[arm] for arm in "abc"] == pytest.approx([26 / 101, 51 / 101, 1.0])
    hand = {"b_minus_a": 25 / 101, "c_minus_b": 50 / 101, "c_minus_a": 75 / 101}
    assert {name: unseen[name]["value"] for name in hand} == pytest.approx(hand)
    assert all(unseen[name]["low"] <= value <= unseen[name]["high"] for name, value in hand.items())
    nothing = {"low": None, "high": None, "undefined": None}
    assert unseen["retention"] == {"value": pytest.approx(1 / 3), **nothing}
    assert unseen["b_over_c"] == {"value": pytest.approx(51 / 101), **nothing}
    assert found["seen"]["c"] is None and undefined(found["seen"], "retention") == "c - a: nothing to judge"
    assert found["all"] == unseen


def test_ratios_of_average_precision_are_undefined_by_the_same_rule(truth: Annotations) -> None:
    same = retention_in_detections(truth, dict.fromkeys("abc", found_in(IMAGES[:4])), resamples=50)["unseen"]
    assert [same[name] for name in DIFFERENCES] == [ZERO] * 3
    assert undefined(same, "retention").startswith("c - a = 0.0000 ")
    assert same["b_over_c"]["value"] == 1.0
    blind = retention_in_detections(truth, {arm: [] for arm in "abc"}, resamples=50)["unseen"]
    assert {undefined(blind, name).split(" = ")[0] for name in RATIOS} == {"c - a", "c"}


def test_a_split_without_classes_is_none(truth: Annotations) -> None:
    everything = read_coco(truth.path, "all", hide_unseen=False)
    found = retention_in_detections(everything, dict.fromkeys("abc", found_in(IMAGES)), resamples=2)
    assert found["unseen"] is None and found["seen"]["c"] == 1.0
