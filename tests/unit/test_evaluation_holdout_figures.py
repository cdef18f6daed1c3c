"""Figures of a hold-out: what their intervals hold, and who wins."""

from __future__ import annotations

import numpy as np
import pytest

from deepmac_distill.dataset.choice import trial_folds
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.holdout_figures import best_of, fold_error, holdout_figures
from deepmac_distill.evaluation.holdout_masks import (
    CUTS,
    HIDDEN,
    SHOWN_ELSEWHERE,
    HoldoutMasks,
    HoldoutRecord,
    HoldoutTeacher,
    holdout_table,
)
from deepmac_distill.evaluation.holdout_results import HeldOut, HeldOutPair
from deepmac_distill.evaluation.results import Interval
from deepmac_distill.report.holdout_tables import holdout_page

CLASSES = ("ant", "bee", "cow", "dog", "elk", "fox")
FOLDS = (CLASSES[::2], CLASSES[1::2])
MASKS = 5  # of each class


def masks_of(lead_of_fold: dict[str, float] | None = None, **ious: float) -> HoldoutMasks:
    """Teachers whose masks all have about one IoU; `seen_...` saw the classes elsewhere.

    Args:
        lead_of_fold: by how much more a teacher's IoU is in the second fold.
    """
    second = np.repeat([name in FOLDS[1] for name in CLASSES], MASKS)
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, len(CLASSES) * MASKS)
    names = np.repeat(CLASSES, MASKS)
    columns: dict[str, list] = {}
    for teacher, iou in ious.items():
        values = (iou + noise + (lead_of_fold or {}).get(teacher, 0.0) * second).tolist()
        rows = {
            "teacher": [teacher] * len(names),
            "fold": [int(name in FOLDS[1]) for name in names],
            "annotation_id": list(range(len(names))),
            "image_id": [i % 7 for i in range(len(names))],
            "category_name": names.tolist(),
            "split": [SHOWN_ELSEWHERE if teacher.startswith("seen") else HIDDEN] * len(names),
            "area": [100] * len(names),
            "box_width": [10.0] * len(names),
            "box_height": [10.0] * len(names),
            "answered": [True] * len(names),
            "iou": values,
            "iou_at_rule": values,
            "cut_ious": [[0.5] * len(CUTS)] * len(names),
            "boundary_iou": values,
            "box_baseline_iou": [0.5] * len(names),
            "ellipse_iou": (0.6 + noise).tolist(),  # hard objects are hard for all
        }
        columns = {name: columns.get(name, []) + value for name, value in rows.items()}
    teachers = tuple(HoldoutTeacher(name, name == "recipe", name) for name in ious)
    return HoldoutMasks(holdout_table(columns), HoldoutRecord("r", "d", 0, False, FOLDS, teachers))


def test_a_teacher_that_leads_everywhere_wins_with_a_paired_difference() -> None:
    found = holdout_figures(masks_of(recipe=0.8, grabcut=0.7), {"recipe": 100, "grabcut": 1}, 50)
    assert (found.winner, found.tied, found.ellipse) == ("recipe", (), pytest.approx(0.6, abs=0.01))
    (pair,) = found.pairs
    assert (pair.a, pair.b, pair.classes) == ("recipe", "grabcut", 6)
    # Both err alike, so their difference is known far better than either of them.
    assert pair.a_minus_b.value == pytest.approx(0.1)
    assert pair.a_minus_b.high - pair.a_minus_b.low < 1e-9
    assert found.of("recipe").iou.high - found.of("recipe").iou.low > 0.005
    assert [row.name for row in found.per_class] == [*FOLDS[0], *FOLDS[1]]


def test_a_ready_teacher_that_finds_one_fold_easier_adds_no_noise_of_trainings() -> None:
    seconds = {"recipe": 100, "grabcut": 1}
    found = holdout_figures(masks_of({"grabcut": -0.3}, recipe=0.8, grabcut=0.6), seconds, 50)
    (pair,) = found.pairs
    assert (found.winner, pair.a_minus_b.value) == ("recipe", pytest.approx(0.35))
    assert pair.a_minus_b.low > 0
    moved = holdout_figures(masks_of({"recipe": -0.3}, recipe=0.8, grabcut=0.6), seconds, 50)
    assert moved.pairs[0].a_minus_b.low < 0  # the trainings differ: so may the one that will label
    assert moved.tied == ("grabcut", "recipe")


def test_what_saw_the_classes_elsewhere_is_listed_and_never_wins() -> None:
    seconds = {"recipe": 1, "seen_starter": 1}
    found = holdout_figures(masks_of(recipe=0.7, seen_starter=0.9), seconds, 20)
    assert found.winner == "recipe" and found.pairs == ()
    starter = found.of("seen_starter")
    assert (starter.classes, starter.elsewhere_classes, starter.iou.value) == (0, 6, None)
    assert starter.elsewhere_iou == pytest.approx(0.9, abs=0.05)
    assert "seen_starter is not ranked" in holdout_page(found)
    assert holdout_figures(masks_of(seen_starter=0.9), {"seen_starter": 1}, 5).winner is None


def test_a_teacher_below_the_ellipse_is_remarked_and_wins_as_before() -> None:
    seconds = {"recipe": 100, "grabcut": 1}
    found = holdout_figures(masks_of(recipe=0.55, grabcut=0.3), seconds, 20)
    page, words = holdout_page(found), "is below the ellipse: a drawn ellipse is better"
    assert found.winner == "recipe" and f"- recipe {words}" in page and f"- grabcut {words}" in page
    page = holdout_page(holdout_figures(masks_of(recipe=0.65, grabcut=0.3), seconds, 20))
    assert f"recipe {words}" not in page and f"- grabcut {words}" in page


def held(name: str, iou: float, seconds: float, trained: bool = False) -> HeldOut:
    some = Interval(iou, iou - 0.1, iou + 0.1)
    return HeldOut(name, trained, seconds, 4, 40, some, iou, some, iou, 0, None)


def test_a_tie_goes_to_the_cheaper_and_training_costs_most() -> None:
    teachers = [held("a", 0.8, 1, trained=True), held("b", 0.79, 9), held("c", 0.78, 5), held("d", 0.5, 0)]
    apart, level = Interval(0.3, 0.2, 0.4), Interval(0.01, -0.02, 0.03)
    pairs = [
        HeldOutPair("a", "b", 4, level),
        HeldOutPair("a", "c", 4, level),
        HeldOutPair("a", "d", 4, apart),
    ]
    assert best_of(teachers, pairs) == ("c", "b", "a")
    assert best_of([], []) == ()


def test_folds_that_differ_widen_the_interval_and_equal_ones_do_not() -> None:
    folds = np.array([0, 0, 0, 1, 1, 1])
    assert fold_error(np.array([0.5, 0.6, 0.7, 0.5, 0.6, 0.7]), folds) == 0
    assert fold_error(np.array([0.5, 0.6, 0.7, 0.7, 0.8, 0.9]), folds) > 0.05
    assert fold_error(np.array([0.5, 0.9]), np.array([0, 1])) == 0  # nothing within folds to compare with


def test_too_few_classes_or_masks_are_refused_with_the_numbers() -> None:
    classes = Classes(("ant", "bee", "cow", "dog"), (1, 2, 3, 4), (True,) * 4)
    assert trial_folds(classes, np.array([9, 8, 7, 6]), 2, "f") == [("ant", "dog"), ("bee", "cow")]
    with pytest.raises(DataError, match="f: hold-out: got 3 seen classes with masks, expected 4 or more"):
        trial_folds(classes, np.array([9, 8, 7, 0]), 2, "f")
    with pytest.raises(DataError, match="f: hold-out: got a fold of 5 masks, expected at least 10 in each"):
        trial_folds(classes, np.array([3, 3, 2, 2]), 2, "f")
