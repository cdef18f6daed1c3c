"""Whether a hold-out keeps what it promises: its time, its interval, and how far its figure is off.

    python benchmarks/holdout.py measure --data DATA --out RUN [--steps 240]
    python benchmarks/holdout.py record RUN --json FILE

DATA holds instances_train.json, instances_val.json and images/, as for `coco_sample`. `measure` runs the
commands one after the other on one thread and keeps what each took of the CPU in RUN-cpu.json; again, it does
what is missing. `record` reads the run. The masks of the unseen classes are read once, by `evaluate`.
RUN-best is the same run labeled by the winner, and by GrabCut in two classes that were named before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
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
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Column, Table, columns, names, points
from deepmac_distill.stages.quality import calibrated, expected_quality

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
BY_CLASS = ("clock", "orange")  # of the unseen ones; colors set such objects apart


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
    best = _best_of(out)
    if not best.exists():
        shutil.copytree(out, best, ignore=shutil.ignore_patterns("pseudolabel", "select", "evaluate-*"))
    keys = ["labels.teacher=best", *(f"labels.teacher_by_class.{name}=grabcut" for name in BY_CLASS)]
    keys += [f"holdout.teachers={TEACHERS}"]
    words = ["pseudolabel", "--out", str(best), *(word for key in keys for word in ("--set", key))]
    subprocess.run([sys.executable, "-m", "deepmac_distill", *words], check=True, env=one)


def _best_of(run: Path) -> Path:
    return run.with_name(f"{run.name}-best")


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
        "expected": _expected_of_labels(run),
        "labels by the winner": _labels_by(run),
        "by size": [
            {"small": small, "large": large, "gain": to_json(by_size(masks, small, large))}
            for small, large in permutations([one.name for one in found.teachers if one.ranked], 2)
        ],
    }


def _expected_of_labels(run: Path) -> Any:
    """What the calibration expects of the masks of unseen classes in the training file."""
    labels, _ = calibrated(Labels.open(run / "pseudolabel" / "masks.parquet"))
    found = expected_quality(labels)
    assert found is not None
    return to_json(found.class_mean_iou)


def _labels_by(run: Path) -> dict[str, Any]:
    """Whose masks RUN-best holds, and whether those of the recipe are bit by bit what it drew alone."""
    alone, best = (Labels.open(one / "pseudolabel" / "masks.parquet") for one in (run, _best_of(run)))
    rows, before = best.table.to_pylist(), alone.table.to_pylist()
    ours = [row["teacher"] == "recipe" for row in rows]
    same = all(
        a["rle_counts"] == b["rle_counts"] for a, b, own in zip(rows, before, ours, strict=True) if own
    )
    masks = {name: sum(facts["masks"].values()) for name, facts in best.teachers.items()}
    return {"masks": masks, "classes of grabcut": BY_CLASS, "recipe as alone": same}


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
    expected = from_json(kept["expected"], Interval, "holdout.json")
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
        f"Once the recipe has labeled, its calibration expects {points_of(expected)} of the masks of these "
        "classes in the training file: their own scores count.",
        winner_words(found),
        labels_words(kept["labels by the winner"]),
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


def points_of(one: Interval) -> str:
    """A value and half its interval."""
    assert one.value is not None and one.high is not None
    return f"{100 * one.value:.1f} ± {100 * (one.high - one.value):.1f}"


def winner_words(found: Holdout) -> str:
    """Who won, and by how much."""
    led = ", ".join(f"{one.a} − {one.b}: {points(one.a_minus_b)} points" for one in found.pairs)
    seen = ", ".join(
        f"{one.name} {100 * one.elsewhere_iou:.1f}" for one in found.teachers if one.elsewhere_iou is not None
    )
    tied = f" (tied: {', '.join(found.tied)})" if found.tied else ""
    return f"Winner: {found.winner}{tied}; {led}. Not ranked, since shown these classes elsewhere: {seen}."


def labels_words(made: dict[str, Any]) -> str:
    """Whose masks the winner's label file holds."""
    masks = ", ".join(f"{count:,} by {name}" for name, count in made["masks"].items())
    same, named = "are" if made["recipe as alone"] else "are not", " and ".join(made["classes of grabcut"])
    return (
        f'`labels.teacher = "best"` with GrabCut in {named} (by hand, before '
        f"any figure): {masks}; the recipe's {same} bit by bit those that it draws alone."
    )


def main() -> int:
    """The commands of the module's docstring."""
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
