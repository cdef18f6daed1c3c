"""How often the intervals of a hold-out hold the truth: made-up classes, folds and teachers.

    python benchmarks/holdout_coverage.py [--draws 150] --json FILE

Classes are hard or easy for everybody, as the ellipse shows. One teacher is trained for each fold, and better
or worse in all of it; another one needs no training, and differs by class alone. The truth is the mean over
all classes and trainings there could be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepmac_distill.evaluation.holdout_figures import holdout_figures
from deepmac_distill.evaluation.holdout_masks import (
    CUTS,
    HIDDEN,
    HoldoutMasks,
    HoldoutRecord,
    HoldoutTeacher,
    holdout_table,
)
from deepmac_distill.files import write_json
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Column, Table

Floats = NDArray[np.float64]
MASKS = 20  # of each class
WITHIN = 0.12  # deviation of IoU in a class
OF_CLASSES, OF_RECIPE, OF_GRABCUT = 0.09, 0.025, 0.15  # deviations: of all teachers alike, and of each
MEANS = {"recipe": 0.60, "grabcut": 0.45}
RESAMPLES = 200


def simulate(draws: int) -> list[dict[str, float]]:
    """A row for each number of classes and folds, and for how much trainings differ."""
    return [
        simulated(draws, classes, folds, training)
        for classes, folds in ((8, 2), (20, 2), (20, 5))
        for training in (0.0, 0.02, 0.04)
    ]


def simulated(draws: int, classes: int, folds: int, training: float) -> dict[str, float]:
    """Coverage and mean width of a teacher's interval and of a difference's."""
    rng, fold = np.random.default_rng(100 * classes + folds), np.arange(classes) % folds
    found = np.array([_draw(rng, fold, training) for _ in range(draws)])
    of = {"hidden classes": classes, "folds": folds, "deviation of a training": training, "draws": draws}
    names = ("coverage", "width", "coverage, recipe - grabcut", "width, recipe - grabcut")
    return of | dict(zip(names, found.mean(axis=0).tolist(), strict=True))


def _draw(rng: np.random.Generator, fold: NDArray[np.int64], training: float) -> tuple[float, ...]:
    classes = len(fold)
    hard = rng.normal(0, OF_CLASSES, classes)
    trained = rng.normal(0, training, fold.max() + 1)[fold]
    ious = {
        "ellipse": MEANS["recipe"] - 0.05 + hard,
        "recipe": MEANS["recipe"] + hard + rng.normal(0, OF_RECIPE, classes) + trained,
        "grabcut": MEANS["grabcut"] + rng.normal(0, OF_GRABCUT, classes),
    }
    within = rng.normal(0, WITHIN, (classes, MASKS))  # of objects, for all teachers alike
    masks = _masks_of(fold, {name: (one[:, None] + within).clip(0, 1).ravel() for name, one in ious.items()})
    figures = holdout_figures(masks, {"recipe": 2, "grabcut": 1}, RESAMPLES)
    recipe, (pair,) = figures.of("recipe"), figures.pairs
    assert recipe is not None
    checked = []
    for one, truth in ((recipe.iou, MEANS["recipe"]), (pair.a_minus_b, MEANS["recipe"] - MEANS["grabcut"])):
        assert one.low is not None and one.high is not None
        checked += [float(one.low <= truth <= one.high), one.high - one.low]
    return tuple(checked)


def _masks_of(fold: NDArray[np.int64], ious: dict[str, Floats]) -> HoldoutMasks:
    """Each mask in an image of its own."""
    names = [str(one) for one in range(len(fold))]
    n = len(names) * MASKS
    tables = []
    for teacher in MEANS:
        columns = {
            **{"teacher": [teacher] * n, "split": [HIDDEN] * n, "answered": [True] * n},
            **{"fold": np.repeat(fold, MASKS), "annotation_id": np.arange(n), "image_id": np.arange(n)},
            **{"category_name": np.repeat(names, MASKS).tolist(), "area": np.full(n, 9)},
            **dict.fromkeys(("box_width", "box_height"), np.full(n, 3.0)),
            **dict.fromkeys(("iou", "iou_at_rule", "boundary_iou", "box_baseline_iou"), ious[teacher]),
            **{"ellipse_iou": ious["ellipse"], "cut_ious": [[0.5] * len(CUTS)] * n},
        }
        tables.append(holdout_table(columns))
    groups = tuple(
        tuple(name for name, of in zip(names, fold, strict=True) if of == at) for at in range(fold.max() + 1)
    )
    teachers = (HoldoutTeacher("recipe", True, ""), HoldoutTeacher("grabcut", False, ""))
    return HoldoutMasks(pa.concat_tables(tables), HoldoutRecord("", "", 0, False, groups, teachers))


def page(kept: list[dict[str, float]]) -> str:
    """Markdown of what was counted."""
    rows = tuple(tuple(f"{one:.3g}" for one in row.values()) for row in kept)
    table = Table("", tuple(Column(name, "figure") for name in kept[0]), rows)
    command = "python benchmarks/holdout_coverage.py --json benchmarks/results/holdout_coverage.json"
    return f"{markdown_table(table)}\n\n`{command}`: 95 % is aimed at."


def main() -> int:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    found = simulate(given.draws)
    write_json(given.json, found)
    sys.stdout.write(page(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
