"""Quality learned from hidden classes: the curve, the bound, the cut, the file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deepmac_distill.calibration.applied import Calibrated, differences_of
from deepmac_distill.calibration.bound import fit_scale, lower_bound
from deepmac_distill.calibration.calibration import (
    ScoreTrial,
    read_calibration,
    write_calibration,
)
from deepmac_distill.calibration.curve import RisingCurve, rising_steps
from deepmac_distill.calibration.cuts import best_cut, cuts_of_other_folds, try_cuts
from deepmac_distill.calibration.expected import expected_of, thresholds_of
from deepmac_distill.calibration.fitting import calibrate, chosen_score
from deepmac_distill.calibration.reliability import KnownMasks, rank_correlation, reliability
from deepmac_distill.calibration.resampling import class_means
from deepmac_distill.calibration.review import review_of
from deepmac_distill.calibration.tried import TriedMasks, class_weights
from deepmac_distill.errors import DataError, RunError
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.table import label_table, label_writer
from deepmac_distill.stages.quality import calibrated, quality_words, require_quality
from tried_masks import HELD_OUT, tried


def test_steps_are_the_nearest_rising_sequence() -> None:
    rng = np.random.default_rng(3)
    values, weights = rng.normal(size=40), rng.uniform(0.1, 2, 40)
    steps = rising_steps(values, weights)
    level = (np.bincount(steps, weights * values) / np.bincount(steps, weights))[steps]
    assert (np.diff(level) >= 0).all()
    # The optimum of isotonic regression: no mean of an upper set is worth moving down, of a lower one up.
    for cut in range(1, 40):
        assert (weights[cut:] * (values - level)[cut:]).sum() <= 1e-9
        assert (weights[:cut] * (values - level)[:cut]).sum() >= -1e-9


def test_a_curve_rises_keeps_the_order_and_extrapolates_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0.3, 0.9, 400)
    curve = RisingCurve.fit(x, np.clip(x + rng.normal(0, 0.1, 400), 0, 1), np.ones(400))
    assert (np.diff(curve.x) > 0).all() and (np.diff(curve.y) > 0).all() and len(curve.x) <= 20
    assert curve(np.array([0.0]))[0] == curve.y[0] and curve(np.array([1.0]))[0] == curve.y[-1]
    assert np.abs(curve(np.array([0.4, 0.6, 0.8])) - [0.4, 0.6, 0.8]).max() < 0.05


def test_a_curve_of_scores_that_say_nothing_is_level() -> None:
    x = np.linspace(0, 1, 50)
    curve = RisingCurve.fit(x, 1 - x, np.ones(50))
    assert curve.y == pytest.approx((0.5,))


def test_classes_weigh_alike_in_a_curve() -> None:
    classes = np.array([0] * 90 + [1] * 10)
    curve = RisingCurve.fit(np.full(100, 0.5), np.where(classes, 1.0, 0.0), class_weights(classes))
    assert curve(np.array([0.5]))[0] == pytest.approx(0.5)


def test_the_bound_holds_for_the_share_it_was_fitted_to() -> None:
    rng = np.random.default_rng(1)
    quality = rng.uniform(0.3, 0.95, 2000)
    iou = np.clip(quality + rng.normal(0, 0.15, 2000), 0, 1)
    weights = class_weights(rng.integers(0, 9, 2000))
    low = lower_bound(quality, fit_scale(quality, iou, weights))
    assert weights @ (iou >= low) == pytest.approx(0.9, abs=0.002)
    assert (low >= 0).all() and (low <= quality).all()


def test_the_rule_stays_unless_another_cut_is_better_for_sure() -> None:
    alike, better = try_cuts(tried()), try_cuts(tried(lead=0.05))
    assert best_cut(alike) == "expected-iou"
    assert best_cut(better) == 0.25
    assert better[1].minus_rule.value == pytest.approx(0.05, abs=0.01)


def test_a_lead_of_one_class_is_not_sure() -> None:
    masks = tried()
    ious = masks.ious.copy()
    ious[masks.classes == 0, 1] += 0.2
    assert best_cut(try_cuts(dataclasses.replace(masks, ious=ious))) == "expected-iou"


def test_each_fold_is_cut_as_the_others_choose() -> None:
    masks = tried()
    ious = masks.ious.copy()
    ious[masks.folds == 1, 1] += 0.1
    chosen = cuts_of_other_folds(dataclasses.replace(masks, ious=ious))
    assert (chosen[masks.folds == 0] == 1).all() and (chosen[masks.folds == 1] == 0).all()


def test_quality_is_right_on_average_on_classes_that_calibration_never_saw() -> None:
    found = []
    for seed in range(8):
        calibration = calibrate(tried(classes=20, seed=seed), HELD_OUT, resamples=2)
        others = tried(classes=40, seed=100 + seed)
        quality, low = calibration.quality(others.scores["expected_iou"], calibration.cut)
        iou, weights = others.ious[:, 0], class_weights(others.classes)
        found.append((weights @ (quality - iou), weights @ (iou >= low)))
    miss, coverage = np.mean(found, axis=0)
    assert abs(miss) < 0.015 and coverage == pytest.approx(0.9, abs=0.03)


def test_the_score_that_predicts_best_is_calibrated() -> None:
    calibration = calibrate(tried(), HELD_OUT, resamples=20)
    assert calibration.score == "expected_iou"
    assert [trial.score for trial in calibration.scores] == ["expected_iou", "mask_score", "mask_bbox_iou"]


def test_of_scores_that_are_nearly_alike_the_first_is_taken() -> None:
    trials = (ScoreTrial("expected_iou", 0.0101), ScoreTrial("mask_score", 0.01))
    assert chosen_score(trials) == "expected_iou"
    assert chosen_score((ScoreTrial("expected_iou", 0.012), trials[1])) == "mask_score"


def test_quality_at_another_cut_has_a_fit_of_its_own_and_an_unknown_cut_is_refused() -> None:
    calibration = calibrate(tried(lead=0.02), HELD_OUT, resamples=20)
    score = np.array([0.5])
    at_rule, at_cut = calibration.quality(score, "expected-iou")[0], calibration.quality(score, 0.25)[0]
    assert at_cut[0] - at_rule[0] == pytest.approx(0.02, abs=0.005)
    with pytest.raises(DataError, match=r"cut 0\.33: got no trial of it, expected one of expected-iou, "):
        calibration.quality(score, 0.33)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (tried(classes=3, each=60), "got 3 hidden classes with masks, expected at least 4"),
        (tried(classes=8, each=10), "got 80 masks of hidden classes, expected at least 100"),
        (dataclasses.replace(tried(), folds=np.zeros(240, np.int64)), "got 1 folds, expected at least 2"),
    ],
)
def test_too_little_is_refused_with_the_number(masks: TriedMasks, message: str) -> None:
    with pytest.raises(DataError, match=message):
        calibrate(masks, HELD_OUT)


def test_the_file_gives_back_what_was_written_and_is_the_same_twice(tmp_path: Path) -> None:
    first = calibrate(tried(), HELD_OUT, resamples=20)
    write_calibration(tmp_path / "a.json", first)
    write_calibration(tmp_path / "b.json", calibrate(tried(), HELD_OUT, resamples=20))
    assert read_calibration(tmp_path / "a.json") == first
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(version=9), "calibration version: got 9, expected 1"),
        (lambda found: found.pop("fits"), "cannot be read: .*fits"),
        (lambda found: found["fits"][0]["curve"].update(y=found["fits"][0]["curve"]["y"][::-1]), "rises"),
        (lambda found: found["fits"][0]["curve"].update(y=[]), "rises"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "c.json"
    write_calibration(path, calibrate(tried(), HELD_OUT, resamples=20))
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(DataError, match=message):
        read_calibration(path)


@pytest.mark.parametrize("content", ["", "[]", "nonsense", "[" * 5000])
def test_what_is_no_calibration_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(DataError) as error:
        read_calibration(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def known(quality: np.ndarray, iou: np.ndarray, classes: np.ndarray) -> KnownMasks:
    return KnownMasks(
        quality=quality,
        quality_low=quality - 0.1,
        iou=iou,
        mask_score=-iou,
        classes=classes,
        images=np.arange(len(iou)),
        class_names=tuple(f"c{i}" for i in range(int(classes.max()) + 1)),
    )


def test_reliability_counts_classes_alike_and_finds_what_is_wrong() -> None:
    classes = np.array([0] * 90 + [1] * 10)
    iou = np.where(classes, 0.4, 0.8) + np.linspace(0, 0.01, 100)
    found = reliability(known(iou + np.where(classes, 0.2, 0.0), iou, classes), resamples=50)
    assert found.quality_minus_iou.value == pytest.approx(0.1)
    assert found.coverage.value == pytest.approx(0.5)  # the bound of class 1 is too high by 0.1
    assert found.calibration_error.value == pytest.approx(0.1, abs=0.01)
    assert found.minus_mask_score.value == pytest.approx(found.rank_correlation + 1)
    assert [(row.name, row.masks) for row in found.by_class] == [("c0", 90), ("c1", 10)]
    assert sum(one.masks for one in found.bins) == 100


def test_intervals_are_of_classes_not_of_masks() -> None:
    """A thousand masks of two classes that differ say little of a third."""
    classes = np.repeat([0, 1], 500)
    values = np.where(classes, 0.9, 0.5)[:, None]
    means = class_means(values, classes, np.arange(1000), 400, seed=0)
    assert means[0, 0] == pytest.approx(0.7)
    assert np.quantile(means[1:, 0], (0.025, 0.975)) == pytest.approx([0.5, 0.9])


def test_ranks_weigh_masks_and_ties_rank_alike() -> None:
    ones = np.ones(4)
    assert rank_correlation(np.array([1.0, 2, 3, 4]), np.array([1.0, 4, 9, 16]), ones) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 1, 2, 2]), np.array([1.0, 2, 3, 4]), ones) == pytest.approx(
        0.894, abs=1e-3
    )
    assert np.isnan(rank_correlation(ones, np.array([1.0, 2, 3, 4]), ones))


def test_the_first_fact_that_differs_is_named() -> None:
    made = {"teacher_card.steps": 480, "look": {"mirror": True, "boxes": "windows"}}
    theirs = {"teacher_card": {"steps": 480}, "look": {"mirror": False, "boxes": "windows"}}
    assert differences_of(made, theirs) == "look: mirror: got False, expected True"
    assert (
        differences_of(made, {"teacher_card": 3, "look": {}})
        == "teacher_card.steps: got nothing, expected 480"
    )
    assert differences_of(made, {**theirs, "look": made["look"], "more": 1}) == ""


def test_keys_of_the_training_are_compared_where_the_label_file_has_them() -> None:
    made = {"teacher_card.steps": 8, "teacher_card.train.lr": 0.5, "teacher_card.data_sha256": "d"}
    card = {"steps": 8, "data_sha256": "d"}
    assert differences_of(made, {"teacher_card": {**card, "train": {"lr": 0.5, "more": 1}}}) == ""
    other = differences_of(made, {"teacher_card": {**card, "train": {"lr": 0.1}}})
    assert other == "teacher_card.train.lr: got 0.1, expected 0.5"
    unnamed = differences_of(made, {"teacher_card": {**card, "train": {}}})
    assert unnamed == "teacher_card.train.lr: got nothing, expected 0.5"
    assert differences_of(made, {"teacher_card": card}) == ""  # of an earlier version
    assert "data_sha256" in differences_of(made, {"teacher_card": {**card, "data_sha256": "e"}})


def test_an_unknown_cut_and_a_missing_score_of_a_calibration(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write_calibration(path, calibrate(tried(), HELD_OUT, resamples=5))
    quality = Calibrated.read(path)
    rows = pa.table({"expected_iou": pa.array([0.5, None], pa.float32())})
    values, low = quality.estimate(rows, "expected-iou")
    assert 0 < low[0] < values[0] < 1 and np.isnan(values[1]) and np.isnan(low[1])
    with pytest.raises(DataError, match=r"cut 0\.4: got no trial of it"):
        quality.estimate(rows, 0.4)


def test_what_a_file_is_worth_counts_classes_alike_and_widens_with_few_of_them() -> None:
    calibration = calibrate(tried(), HELD_OUT, resamples=5)
    calibration = replace(calibration, held_out=replace(HELD_OUT, classes=tuple("abcdefgh")))
    quality, classes = np.array([0.9, 0.9, 0.9, 0.3]), np.array([0, 0, 0, 1])
    found = expected_of(quality, classes, [(calibration, np.ones(4, bool))])
    assert found.class_mean_iou.value == pytest.approx(0.6)
    assert found.instance_mean_iou == pytest.approx(0.75)
    assert found.below == 1 and found.masks == 4 and found.classes == 2
    more = expected_of(np.tile(quality, 9), np.arange(36), [(calibration, np.ones(36, bool))])
    assert more.class_mean_iou.high - more.class_mean_iou.low < found.class_mean_iou.high - (
        found.class_mean_iou.low
    )
    assert expected_of(np.zeros(0), np.zeros(0, np.int64), [(calibration, np.zeros(0, bool))]) is None
    apart = [(calibration, classes == 0), (calibration, classes == 1)]
    two = expected_of(quality, classes, apart)  # each teacher's calibration is right about its class alone
    assert two.class_mean_iou.value == pytest.approx(0.6)
    assert two.class_mean_iou.high > found.class_mean_iou.high


def test_a_threshold_shows_what_it_keeps_and_rejects() -> None:
    found = {one.least: one for one in thresholds_of(np.array([0.2, 0.45, 0.9]))}
    assert (found[0.0].kept, found[0.0].rejected, found[0.0].rejected_quality) == (3, 0, None)
    assert (found[0.5].kept, found[0.5].quality) == (1, 0.9)
    assert found[0.5].rejected_quality == pytest.approx(0.325)


def test_the_lowest_bounds_are_reviewed_first_and_the_gain_is_counted() -> None:
    quality, low = np.array([0.5, 0.9, 0.4, 0.8]), np.array([0.2, 0.7, 0.3, 0.1])
    found = review_of(quality, low, np.array([0, 0, 1, 1]), ("cat", "dog", "owl"), budget=2)
    assert found.rows.tolist() == [3, 0]
    assert found.before == pytest.approx(0.65) and found.after == pytest.approx((1 + 0.9 + 0.4 + 1) / 4)
    assert [(one.name, one.masks, one.listed) for one in found.by_class] == [("dog", 2, 1), ("cat", 2, 1)]
    assert found.by_class[0].gain == pytest.approx(0.8)
    assert found.class_before == pytest.approx((0.7 + 0.6) / 2)
    everything = review_of(quality, low, np.array([0, 0, 1, 1]), ("cat", "dog", "owl"), budget=99)
    assert everything.after == 1 and len(everything.rows) == 4


def test_a_calibration_of_another_teacher_is_refused(tmp_path: Path) -> None:
    row = dict(annotation_id=[1], image_id=[1], file_name=["a.png"], category_id=[1], category_name=["cat"])
    row |= dict(bbox=[[0, 0, 1, 1]], height=[9], width=[9], source=["none"], status=["labeled"], reason=[""])
    with label_writer(tmp_path / "masks.parquet", {}) as writer:
        writer.write(label_table(row))
    labels = Labels.open(tmp_path / "masks.parquet")
    path = tmp_path / "c.json"
    write_calibration(path, calibrate(tried(), HELD_OUT, resamples=5))
    with pytest.raises(DataError, match=r"is of another teacher than .*: teacher_card\.steps: got nothing"):
        calibrated(labels, path)
    own, why_not = calibrated(labels)
    assert own.quality is None and "deepmac holdout" in why_not
    with pytest.raises(
        RunError, match=r"labels\.min_quality = 0\.5: expected a quality of each mask, got no"
    ):
        require_quality(own, why_not, "labels.min_quality = 0.5")
    assert quality_words(own, why_not) == f"quality: {why_not}"
