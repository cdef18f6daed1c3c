"""Quality learned from hidden classes: the curve, the bound, the cut, the file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from deepmac_distill.calibration.bound import fit_scale, lower_bound
from deepmac_distill.calibration.calibration import (
    HeldOut,
    ScoreTrial,
    read_calibration,
    write_calibration,
)
from deepmac_distill.calibration.curve import RisingCurve, rising_steps
from deepmac_distill.calibration.cuts import best_cut, cuts_of_other_folds, try_cuts
from deepmac_distill.calibration.fitting import calibrate, chosen_score
from deepmac_distill.calibration.reliability import KnownMasks, rank_correlation, reliability
from deepmac_distill.calibration.resampling import class_means
from deepmac_distill.calibration.tried import TriedMasks, class_weights
from deepmac_distill.errors import DataError

HELD_OUT = HeldOut(
    teacher="recipe",
    identity="abc",
    trained=True,
    data_sha256="d",
    quick=False,
    folds=2,
    classes=("c0",),
    masks=9,
)


def tried(classes: int = 8, each: int = 30, seed: int = 0, lead: float = 0.0, class_noise: float = 0.05):
    """Masks whose IoU rises with their score; cut at 0.25 they are better by `lead`."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(classes), each)
    score = rng.uniform(0.2, 0.95, len(index))
    iou = 0.15 + 0.7 * score + rng.normal(0, class_noise, classes)[index] + rng.normal(0, 0.08, len(index))
    iou = np.clip(iou, 0, 1)
    nothing = np.full(len(index), np.nan)
    noisy = score + rng.normal(0, 0.3, len(index))
    return TriedMasks(
        scores={
            "expected_iou": score,
            "model_iou": nothing,
            "mask_score": noisy,
            "mask_bbox_iou": rng.uniform(0, 1, len(index)),
        },
        cuts=("expected-iou", 0.25),
        ious=np.stack([iou, np.clip(iou + lead, 0, 1)], axis=1),
        classes=index,
        images=rng.integers(0, 60, len(index)),
        folds=index % 2,
        class_names=tuple(f"c{i}" for i in range(classes)),
    )


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
