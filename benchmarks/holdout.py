"""Whether a hold-out keeps what it promises: its time, its interval, and how far its figure is off.

    python benchmarks/holdout.py measure --data DATA --out RUN [--steps 240]
    python benchmarks/holdout.py record RUN --json FILE

DATA holds instances_train.json, instances_val.json and images/, as for `coco_sample`. `measure` runs the
commands one after the other on one thread and keeps what each took of the CPU in RUN-cpu.json; again, it does
what is missing. `record` reads the run. The masks of the unseen classes are read once, by `evaluate`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.calibration.calibration import read_calibration
from deepmac_distill.calibration.expected import half_width
from deepmac_distill.calibration.resampling import class_means
from deepmac_distill.evaluation.holdout_masks import HoldoutMasks, read_holdout
from deepmac_distill.evaluation.holdout_results import Holdout
from deepmac_distill.evaluation.means import interval
from deepmac_distill.evaluation.results import Evaluation, Interval, from_json, read_result, to_json
from deepmac_distill.files import write_json
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Column, Table, columns, names, points

Floats = NDArray[np.float64]
TEACHERS = "recipe,starter,grabcut"
COMMANDS = {
    "teach": ("teach",),
    "pseudolabel": ("pseudolabel",),
    "hold-out of the recipe": ("holdout", "--teachers", "recipe"),
    "evaluate": ("evaluate", "teacher"),
    "the other teachers": ("holdout", "--teachers", TEACHERS),
}
RESAMPLES = 1000


def measure(data: Path, out: Path, steps: int) -> None:
    """Run the commands that were not run before, and keep their seconds of the CPU."""
    kept = out.with_name(f"{out.name}-cpu.json")
    seconds: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    keys = {"threads": 1, "teacher.train.steps": steps, "teacher.train.batch_size": 8}
    keys |= {"teacher.train.warmup_steps": steps // 10, "labels.cut": "expected-iou"}
    begin = ["-c", "mask_heads", "--data", str(data)]
    begin += [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, words in COMMANDS.items():
        if name not in seconds:
            before = _cpu_seconds()
            first = begin if name == "teach" else []
            command = [sys.executable, "-m", "deepmac_distill", *words, "--out", str(out), *first]
            subprocess.run(command, check=True, env=one)
            seconds[name] = _cpu_seconds() - before
            write_json(kept, seconds)
    subprocess.run([sys.executable, "-m", "deepmac_distill", "calibrate", str(out)], check=True, env=one)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def recorded(run: Path) -> dict[str, Any]:
    """What a finished run shows."""
    found = read_result(run / "holdout" / "summary.json", Holdout)
    masks = read_holdout(run / "holdout" / "masks.parquet")
    truth = read_result(run / "evaluate-teacher" / "summary.json", Evaluation).given_boxes.unseen
    calibration = read_calibration(run / "calibration" / "recipe.calibration.json")
    recipe = found.of("recipe")
    assert recipe is not None and truth.instances
    seconds = json.loads(run.with_name(f"{run.name}-cpu.json").read_text())
    spread, hidden = calibration.class_spread, len(calibration.held_out.classes)
    return {
        "cpu seconds": seconds,
        "ratio": seconds["hold-out of the recipe"] / (seconds["teach"] + seconds["pseudolabel"]),
        "holdout": to_json(found),
        "unseen": {"iou": to_json(truth.model), "classes": truth.classes, "instances": truth.instances},
        "half width": half_width(spread, hidden, truth.classes),  # of what the unseen classes are expected
        "by size": [
            {"small": small, "large": large, "gain": to_json(by_size(masks, small, large))}
            for small, large in permutations([one.name for one in found.teachers if one.ranked], 2)
        ],
    }


def by_size(masks: HoldoutMasks, small: str, large: str) -> Interval:
    """Class-mean IoU of a rule by the size of the box, less that of the better teacher alone.

    Boxes below a side are drawn by one teacher, the others by another; the side and the teacher that is
    better alone are those of the other folds.
    """
    tables = [masks.of(name).sort_by("annotation_id") for name in (small, large)]
    rows = tables[0]
    ious = np.stack([table["iou"].to_numpy() for table in tables], axis=1)
    sides = np.sqrt(rows["box_width"].to_numpy() * rows["box_height"].to_numpy())
    classes = rows["category_name"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    folds, images = rows["fold"].to_numpy(), rows["image_id"].to_numpy()
    chosen = np.zeros((len(rows), 2))  # by the rule, by the better teacher
    for fold in np.unique(folds):
        own = folds == fold
        side = best_side(ious[~own], sides[~own], classes[~own])
        better = int(np.argmax(_over_classes(ious[~own], classes[~own])))
        chosen[own, 0] = np.where(sides[own] < side, ious[own, 0], ious[own, 1])
        chosen[own, 1] = ious[own, better]
    means = class_means(chosen, classes, images, RESAMPLES, 0)
    return interval(means[:, 0] - means[:, 1])


def best_side(ious: Floats, sides: Floats, classes: NDArray[np.int64]) -> float:
    """The side below which the first teacher draws and above which the second, by class-mean IoU."""
    tried = np.r_[0.0, np.quantile(sides, np.linspace(0.05, 0.95, 19)), np.inf]
    rules = np.stack([np.where(sides < side, ious[:, 0], ious[:, 1]) for side in tried], axis=1)
    return float(tried[int(np.argmax(_over_classes(rules, classes)))])


def _over_classes(values: Floats, classes: NDArray[np.int64]) -> Floats:
    _, index, counts = np.unique(classes, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(index, column) for column in values.T], axis=1)
    return np.asarray((sums / counts[:, None]).mean(axis=0))


def page(kept: dict[str, Any]) -> str:
    """Markdown of what was recorded."""
    found = from_json(kept["holdout"], Holdout, "holdout.json")
    truth, recipe = from_json(kept["unseen"]["iou"], Interval, "holdout.json"), found.of("recipe")
    assert recipe is not None and recipe.iou.value is not None and truth.value is not None
    width = (recipe.iou.high or 0) - (recipe.iou.low or 0)
    table = Table(
        "A hold-out of two folds",
        (*names("teacher"), *columns("count", ("hidden classes", "masks")), Column("IoU")),
        tuple((one.name, one.classes, one.instances, one.iou) for one in found.teachers),
    )
    rules = [
        (one["small"], one["large"], from_json(one["gain"], Interval, "holdout.json"))
        for one in kept["by size"]
    ]
    lines = [
        f"{markdown_table(table)}\n",
        f"The recipe's figure has an interval {100 * width:.1f} points wide (10 are asked). On the classes "
        f"that nobody showed it, the whole teacher then reached {100 * truth.value:.1f}: the figure was "
        f"{100 * abs(truth.value - recipe.iou.value):.1f} points "
        f"{'too low' if truth.value > recipe.iou.value else 'too high'} (4 are asked).",
        f"The hold-out of the recipe took {kept['ratio']:.2f} times the CPU of teaching "
        "and labeling (2.1 are asked).",
        *(
            f"Boxes below a side by {small}, others by {large}, less the better one alone: {points(gain)} "
            "points; the side is that of the other fold."
            for small, large, gain in rules
        ),
        "`python benchmarks/holdout.py measure --data DATA --out RUN`, then `record RUN --json "
        "benchmarks/results/holdout.json`: coco80, `mask_heads` with 240 steps of 8 windows.",
    ]
    return "\n".join(lines)


def main() -> int:
    """The two commands of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--data", type=Path, required=True)
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--steps", type=int, default=240)
    recording = commands.add_parser("record")
    recording.add_argument("run", type=Path)
    recording.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    if given.action == "measure":
        measure(given.data, given.out, given.steps)
        return 0
    found = recorded(given.run)
    write_json(given.json, found)
    print(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
