"""Whether a student gains by the quality of its teacher's masks or by soft targets, against plain masks.

    python benchmarks/student_targets.py train --labels masks.parquet --calibration FILE.json --data FOLDER
        [--arms plain quality soft both] [--seeds 0 1 2] [--out runs/student_targets] [--set KEY=VALUE ...]
    python benchmarks/student_targets.py measure [--out runs/student_targets] [--json FILE]

The labels are those of one teacher, the calibration that of its hold-out (`deepmac holdout`, `deepmac
calibrate`). Each arm trains the same student with a ResNet-4 head on windows, where a short training tells
most: what differs is the loss of the teacher's masks alone. Arms are paired by seed and images. The rule,
written before the figures: an arm becomes the default where its difference from plain masks on unseen classes
has an interval above 0.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepmac_distill.devices import environment
from deepmac_distill.evaluation.results import PairedIoU, from_json, to_json
from deepmac_distill.files import write_json
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Table, columns, names
from deepmac_distill.report.tables import interval_note
from deepmac_distill.stages.compare import compare_on, truth_of

RESAMPLES = 1000
PLAIN = "plain"
QUALITY = ("labels.mask_weight=quality",)
SOFT = ("labels.targets=soft",)
ARMS: Mapping[str, tuple[str, ...]] = {PLAIN: (), "quality": QUALITY, "soft": SOFT, "both": QUALITY + SOFT}
STUDENT = (
    "student.model.detection=false",
    'student.look.boxes="windows"',
    "student.look.window_context=1.5",
    "student.look.window_size_px=128",
    "student.look.mirror=true",
    'student.train.views="windows"',
    "student.train.steps=480",
    "student.train.batch_size=16",
    "student.train.warmup_steps=50",
    "student.train.ema_decay=0.99",
    "student.train.autocast=off",
)


def train(given: argparse.Namespace) -> None:
    """Each arm of each seed that is not done yet: `deepmac student` and `deepmac evaluate student`."""
    for seed in given.seeds:
        for arm in given.arms:
            keys = (
                *STUDENT,
                f"labels.calibration={given.calibration.absolute()}",
                *ARMS[arm],
                *given.overrides,
            )
            run = given.out / arm / f"seed-{seed}"
            words = ("student", "--config", "coco_sample", "--data", given.data, "--labels", given.labels)
            sets = [word for key in keys for word in ("--set", key)]
            deepmac(*words, "--seed", seed, "--out", run, *sets)
            deepmac("evaluate", "student", "--set", "evaluation.gt_boxes_only=true", "--out", run)


def deepmac(*words: object) -> None:
    """Run a command; end with its exit code where it fails, since it has said why."""
    ended = subprocess.run([sys.executable, "-m", "deepmac_distill", *map(str, words)])
    if ended.returncode:
        sys.exit(ended.returncode)


def evaluations(out: Path, arm: str) -> dict[int, Path]:
    """By seed: those of an arm that ended."""
    found = (out / arm).glob("seed-*/evaluate-student")
    return {int(at.parent.name.removeprefix("seed-")): at for at in found if (at / "done.json").exists()}


def measured(out: Path) -> dict[str, Any]:
    """Of each arm, paired with plain masks over the seeds that both have: unseen and seen classes."""
    plain, arms = evaluations(out, PLAIN), {}
    truth = truth_of(list(plain.values()))
    for arm in (name for name in ARMS if name != PLAIN):
        own = evaluations(out, arm)
        seeds = sorted(own.keys() & plain)
        if not seeds:
            continue
        found = compare_on(
            truth, [own[s] for s in seeds], [plain[s] for s in seeds], RESAMPLES, 0
        ).given_boxes
        arms[arm] = {"seeds": seeds, "unseen": to_json(found.unseen), "seen": to_json(found.seen)}
    return {"environment": environment(), "arms": arms}


def page(recorded: Mapping[str, Any]) -> str:
    """Markdown: a row for each arm and split."""
    rows = []
    for arm, found in recorded["arms"].items():
        for split in ("unseen", "seen"):
            row = from_json(found[split], PairedIoU, f"student_targets: {arm}: {split}")
            rows.append(
                (arm, split, len(found["seeds"]), row.class_mean_iou.a, row.class_mean_iou.b, row.a_minus_b)
            )
    most = max((len(found["seeds"]) for found in recorded["arms"].values()), default=1)
    table = Table(
        "",
        (
            *names("the student learns", "classes"),
            *columns("count", ("seeds",)),
            *columns("percent", ("IoU", "of plain masks")),
            *columns("points", ("difference",)),
        ),
        tuple(rows),
    )
    return (
        f"{markdown_table(table)}\n\n"
        "`python benchmarks/student_targets.py train ...`, then `measure`: masks in given boxes, means over "
        f"classes; brackets are {interval_note(range(most))}."
    )


def measure(given: argparse.Namespace) -> None:
    """Print, and keep."""
    found = measured(given.out)
    print(page(found))
    if given.json:
        write_json(given.json, found)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    training, measuring = commands.add_parser("train"), commands.add_parser("measure")
    for command in (training, measuring):
        command.add_argument("--out", type=Path, default=Path("runs/student_targets"))
    training.add_argument("--data", required=True)
    training.add_argument("--labels", type=Path, required=True)
    training.add_argument("--calibration", type=Path, required=True)
    training.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    training.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    training.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    measuring.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    """Train or measure."""
    given = parsed(None)
    {"train": train, "measure": measure}[given.action](given)


if __name__ == "__main__":
    main()
